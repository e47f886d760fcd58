#include "train/teach_state.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <string.h>

int teach_centers(Teacher *t, float **head, float **base)
{
    StateList l = { 0 };
    *head = *base = NULL;
    int rc = teacher_state(t, &l);
    for (size_t i = 0; !rc && i < l.count; i++) {
        if (!strcmp(l.items[i].name, "center"))
            *head = l.items[i].data;
        else if (!strcmp(l.items[i].name, "center_base"))
            *base = l.items[i].data;
    }
    state_free(&l);
    return rc ? rc : *head ? 0 : err_set(ERR_ABSENT, "the teacher keeps no centre");
}

int teach_move_state(Teacher *t, int64_t k, float *state, bool load)
{
    Network *net = teacher_network(t);
    Backend *be = network_backend(net);
    Params *params = network_params(net);
    float *part[3] = { params_flat(params) };
    size_t center = (size_t)k * sizeof(float), bytes[3] = { params_bytes(params), center, center };
    if (teach_centers(t, &part[1], &part[2]))
        return -1;
    for (int i = 0; i < 3; i++) {
        if (!part[i])
            continue;
        if (load ? be->write(be, part[i], state, bytes[i]) : be->read(be, state, part[i], bytes[i]))
            return -1;
        state += bytes[i] / sizeof(float);
    }
    return be->sync(be); /* the array may go */
}
