/* Checks of an LMDB file's pages. LMDB trusts its file: a damaged page number or offset can make it read outside
 * the map. So the tree is walked once on opening, and only a file that is sound goes to LMDB. Private to lib/store. */
#ifndef HSSL_STORE_PAGES_H
#define HSSL_STORE_PAGES_H

#include "store/env.h"

/* Before LMDB opens it: the two meta pages. 0, or -1 with ERR_DATA. */
int pages_check_head(int fd, const char *path, const char *what);

/* The tree as the open read transaction txn sees it: every branch and leaf page, and where the large values lie.
 * deep (for writers): also the headers of large values, the free list, and that no page is used twice. */
int pages_check_tree(const StoreEnv *e, MDB_txn *txn, bool deep, const char *skip);

/* Whether the file's meta page is that of the committed transaction txn; and, where that was remembered already and nobody
 * has written since, the roots of its trees, too. keep: remember those (e->watch), for store_intact(). */
bool pages_pin(StoreEnv *e, uint64_t txn, bool keep);

#endif
