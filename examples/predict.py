"""Say what is seen in videos, with the network that a run has trained.

    python examples/predict.py RUN VIDEO...

RUN is a directory that `pvnas run` or `pvnas train` has written.
"""

import sys

import pvnas


def main(run: str, *videos: str) -> None:
    for prediction in pvnas.predictions(videos, run, top=3):
        print(prediction.path.name, prediction.error)
        for name, score in prediction.classes:
            print(f"  {score:6.1%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
