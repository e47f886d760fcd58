/* The configuration in a run: JSON text. What was understood must be understood again. */
#include "fuzz.h"

#include "ssl/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    FuzzInput in = { bytes, bytes + n };
    TrainConfig c, again;
    size_t got;
    char *text = (char *)fuzz_block(&in, n, &got);
    text = realloc(text, got + 1);
    if (!text)
        abort();
    text[got] = 0;
    if (!config_from_json(&c, text)) {
        StepRates r;
        char *json = config_to_json(&c);
        MUST(json && !config_from_json(&again, json));
        config_rates(&c, 100, 12345, &r);
        free(json);
    }
    free(text);
    return 0;
}
