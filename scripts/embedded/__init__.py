"""How the embedded model's perception was trained: packed data, a loop over all tasks of an image at once, export.

python -m scripts.embedded.pack DATA_FOLDER PACK [--size 288x384]
python -m scripts.embedded.train RUN --pack PACK:SHARE [--pack ...] [--seconds N]
python -m scripts.embedded.train RUN ... --decay 600        # the last steps, with a falling learning rate
python -m scripts.embedded.export RUN CHECKPOINT
"""
