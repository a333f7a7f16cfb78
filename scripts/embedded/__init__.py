"""Training of the embedded model's perception: packed data, joint training of all tasks, export.

python -m scripts.embedded.pack DATA_FOLDER PACK [--size 288x384]
python -m scripts.embedded.train RUN --pack PACK:SHARE [--pack ...] [--seconds N]
python -m scripts.embedded.train RUN ... --decay 600        # the last steps, with a falling learning rate
python -m scripts.embedded.export RUN CHECKPOINT
"""
