"""Where pictures, captions, films, weights and features come from."""
