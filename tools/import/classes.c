#include "import.h"

#include "util/log.h"

#include <stdio.h>
#include <string.h>

static bool is_part(const char *name)
{
    static const char *const parts[] = { "train", "training", "val", "valid", "validation", "dev", "test",
                                         "testing" };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strcmp(name, parts[i]))
            return true;
    return false;
}

void look_at_classes(const Dataset *ds, int level, const char *origin)
{
    const char *path = dataset_path(ds), *name = NULL;
    int n = 0, parts = 0;
    for (int i = 0; i < dataset_classes(ds); i++) {
        if (!dataset_class_count(ds, i))
            continue;
        name = dataset_class_name(ds, i);
        parts += is_part(name);
        n++;
    }
    if (level && n && parts == n)
        log_warn("%s: its class%s \"%s\"%s like part%s of a data set: import each part by itself, or "
                 "give -f --class-level %d",
                 path, n > 1 ? "es, as" : "", name, n > 1 ? ", look" : " looks", n > 1 ? "s" : " of one",
                 level > 0 ? level + 1 : -1);
    else if (n > 1)
        return;
    else if (level && n)
        log_warn(
            "%s: only one class, \"%.100s\", the folder of its images at level %d: -f with --class-level N "
            "takes another one, with --labels FILE.csv a table; --labels none says that none is meant",
            path, name, level);
    else if (level)
        log_info("%s: no classes, for its images lie in no folder at level %d (-f --class-level N takes "
                 "another one); "
                 "a training needs none",
                 path, level);
    else
        log_warn("%s: %s by %s", path, n ? "only one class" : "no classes", origin);
}
