/* Tickets: the line itself. What was understood must be written and understood again. */
#include "fuzz.h"

#include "stream/ticket.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Ticket t, again;
    char line[8192];
    if (ticket_parse((const char *)bytes, n, &t))
        return 0;
    int length = ticket_format(&t, line, sizeof line);
    MUST(length > 0 && (size_t)length < sizeof line);
    if (length <= TICKET_MAX_LINE) {
        MUST(!ticket_parse(line, (size_t)length, &again));
        MUST(!strcmp(t.kind, again.kind) && !strcmp(t.endpoint, again.endpoint) && t.pairs == again.pairs);
    }
    ticket_kind_in(t.kind, "records|plans");
    ticket_get(&t, "key");
    return 0;
}
