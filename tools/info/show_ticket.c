/* A ticket: the stream it leads to, and whether somebody is there. */
#include "show.h"
#include "stream/ticket.h"
#include "util/err.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What is printed may be passed on; who holds the secret may take the stream. */
static const char *ticket_value(const Ticket *t, int i)
{
    return strcmp(t->pair[i].key, "secret") ? t->pair[i].value : "(not shown)";
}

int show_ticket(const char *path, const Wanted *w)
{
    char line[TICKET_MAX_LINE + 1];
    Ticket t;
    FILE *in = strcmp(path, "-") ? fopen(path, "r") : stdin;
    if (!in)
        return err_system("%s", path);
    bool got = fgets(line, sizeof line, in);
    if (in != stdin)
        fclose(in);
    if (!got)
        return err_set(ERR_DATA, "%s: no ticket there", path);
    if (ticket_parse(line, strlen(line), &t))
        return err_prefix("%s", path);
    const char *by = ticket_program(t.kind);
    if (w->json) {
        json_object *j = json_object_new_object(), *pairs = json_object_new_object();
        json_object_object_add(j, "file", text_json(path));
        json_object_object_add(j, "kind", text_json("ticket"));
        json_object_object_add(j, "stream", text_json(t.kind));
        json_object_object_add(j, "endpoint", text_json(t.endpoint));
        for (int i = 0; i < t.pairs; i++)
            json_object_object_add(pairs, t.pair[i].key, text_json(ticket_value(&t, i)));
        json_object_object_add(j, "pairs", pairs);
        print_json(j);
        return 0;
    }
    printf("%s: ticket of a stream of %s%s%s%s\n  endpoint  %s\n", safe_text(path), t.kind, by ? " (made by " : "", by ? by : "",
           by ? ")" : "", safe_text(t.endpoint));
    for (int i = 0; i < t.pairs; i++)
        printf("  %s = %s\n", safe_text(t.pair[i].key), safe_text(ticket_value(&t, i)));
    if (!strncmp(t.endpoint, "ipc://", 6))
        printf("  %s\n", access(t.endpoint + 6, F_OK) ? "nobody is there: its producer has ended"
                                                     : "its socket is there");
    return 0;
}
