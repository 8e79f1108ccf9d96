"""How papermill executes the kit's notebooks: as it always does, but without writing them all the time."""

from papermill.engines import NBClientEngine, papermill_engines

NAME = "impart"
EVERY = 5.0  # seconds; what a run that is killed may lose of the outputs that it shows


class SparingEngine(NBClientEngine):
    """Writes the notebook every few seconds, and at its end.

    papermill's own engine writes it before and after each cell, prose included: twenty-odd milliseconds each
    where it holds figures, and seconds in all.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        write = nb_man.save

        def save():
            if (nb_man.now() - nb_man.last_save_time).total_seconds() >= EVERY:
                write()

        nb_man.save = save
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            del nb_man.save  # papermill's again, for the last time: that one is written whatever happened


papermill_engines.register(NAME, SparingEngine)
