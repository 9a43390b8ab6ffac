"""``python -m medmaskrcnn_datasets``: labelled data sets from the command line."""

from medmaskrcnn_datasets.command import app

if __name__ == "__main__":
    app(prog_name="python -m medmaskrcnn_datasets")
