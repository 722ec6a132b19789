"""The questions of the subject `reading` with pandas, on the Parquet file of an export: one a process.

pandas reads whole columns into memory; here it reads only those that the question needs.
"""

import sys

import pandas

question, *paths = sys.argv[1:]
if question == "filter":
    frame = pandas.read_parquet(
        paths[0], columns=["index", "score.exact_match", "score.judge", "row.category", "response"]
    )
    found = frame[(frame["score.exact_match"] == 0) & (frame["row.category"] == "category 7")].head(20)
    print(found.to_string())
elif question == "group":
    frame = pandas.read_parquet(paths[0], columns=["row.category", "score.exact_match", "score.judge"])
    print(frame.groupby("row.category").agg(["mean", "sem", "count"]).to_string())
elif question == "compare":
    both = [pandas.read_parquet(path, columns=["key", "score.exact_match", "score.judge"]) for path in paths]
    paired = both[0].merge(both[1], on="key", suffixes=("", ".new"))
    for score in ("score.exact_match", "score.judge"):
        difference = paired[f"{score}.new"].astype(float) - paired[score].astype(float)
        print(score, len(difference), difference.mean(), difference.sem())
