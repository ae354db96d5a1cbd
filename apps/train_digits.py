"""A real task to watch: trains a classifier of handwritten digits, with a progress bar, for a minute or two.

    koubou run --name "train digits" -- python apps/train_digits.py --rounds 80

The data set comes with scikit-learn: nothing is downloaded.
"""

import argparse
import os
import sys

# One core: what runs beside it on the same machine is not starved. Set before scikit-learn looks.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from tqdm import tqdm


def main() -> int:
    """Train round by round, show how good it is, and end with the accuracy on digits that it never saw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=80, help="rounds of boosting")
    parser.add_argument(
        "--noisy-copies", type=int, default=5, help="noisy copies of each digit to learn from"
    )
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()

    digits, labels = load_digits(return_X_y=True)
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        digits, labels, test_size=0.25, random_state=args.seed, stratify=labels
    )
    chance = np.random.default_rng(args.seed)
    copies = [seen + chance.normal(0, 1.5, seen.shape) for _ in range(args.noisy_copies)]
    pixels = np.concatenate([seen, *copies])
    answers = np.tile(seen_labels, 1 + args.noisy_copies)
    print(f"{len(pixels):,} digits to learn from, {len(unseen):,} to be judged by, {args.rounds} rounds")

    model = HistGradientBoostingClassifier(
        max_iter=1, learning_rate=0.1, warm_start=True, early_stopping=False, random_state=args.seed
    )
    accuracy = 0.0
    with tqdm(range(1, args.rounds + 1), unit="round") as rounds:
        for n in rounds:
            model.set_params(max_iter=n)
            model.fit(pixels, answers)
            loss = log_loss(unseen_labels, model.predict_proba(unseen))
            accuracy = model.score(unseen, unseen_labels)
            rounds.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")
            if n % 10 == 0:
                tqdm.write(f"round {n:3d}: loss {loss:.4f}, accuracy {accuracy:.2%}", file=sys.stdout)
                sys.stdout.flush()
    print(f"done: {accuracy:.2%} of {len(unseen)} unseen digits are read rightly")
    return 0


if __name__ == "__main__":
    sys.exit(main())
