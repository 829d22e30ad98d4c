"""Inserts rows with sqlite3, each in a transaction of its own, synchronous=FULL; times them.

usage: sqlite_insert.py DIR delete|wal TRANSACTIONS
prints: sqlite TRANSACTIONS SECONDS (the database and its table are made before)
"""

import os
import sqlite3
import sys
import time


def main():
    folder, mode, transactions = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # isolation_level=None: the module adds no BEGIN, each statement is a transaction.
    database = sqlite3.connect(os.path.join(folder, f"{mode}.db"), isolation_level=None)
    if database.execute(f"pragma journal_mode={mode}").fetchone()[0] != mode:
        raise SystemExit(f"sqlite_insert: this filesystem has no journal mode {mode}")
    database.execute("pragma synchronous=full")
    database.execute("create table if not exists t (id integer primary key, v blob)")
    rows = [(os.urandom(100),) for _ in range(transactions)]
    start = time.monotonic()
    for row in rows:
        database.execute("insert into t (v) values (?)", row)
    elapsed = time.monotonic() - start
    database.close()
    print("sqlite", transactions, f"{elapsed:.6f}")


main()
