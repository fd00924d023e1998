#!/usr/bin/env python3
"""Score a trained model on any pair of files: loss and perplexity, BLEU and chrF of its translations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinytransformer.backend import DEVICES, keep_freed_memory
from tinytransformer.command_line import HelpFormatter, directory, errors_in_one_line, exponent, hypotheses
from tinytransformer.data import DataError, encode_corpus, read_parallel
from tinytransformer.evaluation import evaluate_loss, evaluate_translation, score
from tinytransformer.translation import Search, Translator


def main() -> None:
    with errors_in_one_line("evaluate.py"):
        options = parse_arguments()
        keep_freed_memory()
        sources, targets = read_parallel(options.source, options.target)  # the line counts are compared first
        translator = Translator.load(options.model, device=options.device, shortlist=options.shortlist)
        corpus = encode_corpus(translator.tokenizer, sources, targets, translator.longest)
        if not corpus.pairs:
            longest = f"of fewer than {translator.longest} subwords a side"
            raise DataError(f"{options.source} and {options.target} hold no pair {longest}, as the model takes them")
        for note in corpus.notes("test", translator.longest):
            print(f"{note}; BLEU, chrF and exact count them, the loss does not", file=sys.stderr)
        loss = evaluate_loss(translator.model, corpus.pairs)
        cased, translations = evaluate_translation(translator, sources, targets, Search(options.beam, options.alpha))
        print(f"loss {loss.per_token:.4f} per subword, perplexity {loss.perplexity:.3f}, {len(corpus.pairs)} sentences")
        lower = score([t.lower() for t in translations], [t.lower() for t in targets])
        print(f"BLEU {cased.bleu:.2f}  {cased.bleu_signature}")
        print(f"BLEU {lower.bleu:.2f}  after lower-casing both")
        print(f"chrF {cased.chrf:.2f}  {cased.chrf_signature}")
        exact = sum(t == r for t, r in zip(translations, targets, strict=True))
        print(f"exact {100 * exact / len(targets):.2f} %  {exact} of {len(targets)} sentences")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="text to translate, UTF-8")
    parser.add_argument("target", type=Path, metavar="TARGET", help="its translation, line by line")
    parser.add_argument("--model", type=directory, default=Path("runs/toy"), metavar="DIR", help="directory of a run")
    parser.add_argument(
        "--beam", type=hypotheses, default=4, metavar="N", help="hypotheses followed at once; 1 is greedy"
    )
    parser.add_argument("--alpha", type=exponent, default=0.6, metavar="A", help="favour long translations by this")
    parser.add_argument(
        "--shortlist", action="store_true", help="look only at tokens that a translation of the line may well have"
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute")
    return parser.parse_args()


if __name__ == "__main__":
    main()
