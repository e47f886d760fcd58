/* lib/store: tables of labels. */
#include "../tap.h"

#include "store/labels.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/hssl-labels.XXXXXX";

static Labels *table(const char *text)
{
    FILE *f = fopen(path, "wb");
    if (!f || fputs(text, f) < 0 || fclose(f))
        exit(1);
    return labels_read(path);
}

/* want: NULL: there is no row; "": it gives no class. */
static bool finds(Labels *l, const char *name, const char *want)
{
    const char *class = "?";
    int rc = l ? labels_find(l, name, &class) : -1;
    bool good = want ? rc == 1 && !strcmp(class ? class : "", want) : rc == 0 && !class;
    if (!good)
        diag("%s: %d, %s", name, rc, class ? class : "none");
    return good;
}

static void refuses(const char *text, const char *why)
{
    Labels *l = table(text);
    ok(!l && err_code() == ERR_DATA && strstr(err_text(), path) && strstr(err_text(), why), "refused: %s",
       why) ||
        (diag("%s", l ? "taken" : err_text()), 0);
    labels_free(l);
}

static void test_forms(void)
{
    Labels *l = table("a.jpg,cat\nb.jpg,dog\n");
    ok(finds(l, "a.jpg", "cat") && finds(l, "b.jpg", "dog") && finds(l, "c.jpg", NULL) && !labels_numbered(l),
       "without a header");
    labels_free(l);
    l = table("\xef\xbb\xbf"
              "split;Label;Filename\r\ntrain; cat ;a.jpg\r\n\r\nval;\"d\"\"o;g\" ; \"b,\r\n.jpg\"");
    ok(finds(l, "a.jpg", "cat") && finds(l, "b,\r\n.jpg", "d\"o;g"),
       "with one, other columns, semicolons, quotation marks, blanks, an empty row, a byte order mark, no "
       "line break at the end");
    labels_free(l);
    l = table("id\tlabel_name\tclass\nx1\tcat\t3\nx2\tdog\t0\n");
    ok(finds(l, "t/x1.jpg", "3") && labels_numbered(l), "names without suffixes, tabs");
    labels_free(l);
    l = table("img,y\na.jpg,10\nb.jpg,\nc.jpg,-1\n./d.jpg,2\n");
    ok(labels_numbered(l) && finds(l, "img", NULL) && finds(l, "a.jpg", "10") && finds(l, "b.jpg", "") &&
           finds(l, "c.jpg", "") && finds(l, "d.jpg", "2"),
       "a header of other words is known by numbers below it; no class");
    labels_free(l);
    l = table("id,breed\nx1,beagle\n");
    ok(finds(l, "x1.jpg", "beagle") && finds(l, "id", NULL), "a class called as the things are");
    labels_free(l);
    l = table(",filename,breed\n0,a.jpg,beagle\n");
    ok(finds(l, "a.jpg", "beagle") && finds(l, "0", NULL), "behind a column of numbers without a name");
    labels_free(l);
    l = table("a,image\nb,name\n");
    ok(finds(l, "a.jpg", "image") && finds(l, "b.jpg", "name"), "classes that are called like columns");
    labels_free(l);
    l = table("a.jpg,1\nb.jpg,02\n");
    ok(l && !labels_numbered(l) && finds(l, "b.jpg", "02"), "numbers of another form are names");
    labels_free(l);
    l = table("t/a.jpg,1\na.jpg,2\na,3\n");
    ok(finds(l, "t/a.jpg", "1") && finds(l, "v/a.jpg", "2") && finds(l, "a.png", "3"),
       "the name that says most counts");
    labels_free(l);
}

static void test_unused(void)
{
    const char *first;
    Labels *l = table("a,1\nb,2\nc,3\na,1\n");
    bool good = finds(l, "b.jpg", "2") && labels_unused(l, &first) == 2 && !strcmp(first, "a");
    ok(good, "rows that nobody asked for; a row said twice is one");
    ok(finds(l, "a.jpg", "1") && finds(l, "c.jpg", "3") && labels_unused(l, &first) == 0 && !first,
       "then all were");
    labels_free(l);
    l = table("n,0\n");
    for (int i = 0; i < 3000 && l; i++) { /* more than the first rooms hold */
        char text[64];
        FILE *f = fopen(path, i ? "ab" : "wb");
        snprintf(text, sizeof text, "%d.jpg,%d\n", i, i * 7 % 3000);
        if (!f || fputs(text, f) < 0 || fclose(f))
            exit(1);
    }
    labels_free(l);
    l = labels_read(path);
    int wrong = 0;
    for (int i = 0; i < 3000; i++) {
        char name[32], class[32];
        snprintf(name, sizeof name, "x/%d.jpg", i);
        snprintf(class, sizeof class, "%d", i * 7 % 3000);
        wrong += !finds(l, name, class);
    }
    ok(!wrong && l && labels_numbered(l), "three thousand rows");
    labels_free(l);
}

static void test_errors(void)
{
    refuses("", "no CSV");
    refuses("a.jpg\nb.jpg\n", "neither a comma");
    refuses("a,1\nb\n", "row 2 has 1 field");
    refuses("a,1\n\n\nb\n", "row 4 has 1 field");
    refuses("x,label,file\n1,2\n", "fields 3 and 2");
    refuses("a,1\nb,\"2\n", "row 2: a quotation mark");
    refuses("a,1\na,2\n", "two classes for a: 1 and 2");
    refuses("a,1\na,\n", "two classes for a: 1 and none");
    refuses("name,label\n", "no row");
    unlink(path);
    ok(!labels_read(path) && err_code() == ERR_SYSTEM && strstr(err_text(), path),
       "a table that is not there");
    ok(!labels_read("/tmp") && strstr(err_text(), "/tmp"), "a folder");
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    test_forms();
    test_unused();
    test_errors();
    return tap_done();
}
