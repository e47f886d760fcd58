#include "train/teach_notes.h"

#include "util/err.h"

int note_begin(Message *m, const char *op)
{
    message_init(m, MSG_NOTE);
    return message_set_text(m, "op", op);
}

const char *note_op(const Message *m)
{
    return m->type == MSG_NOTE ? message_text(m, "op", "") : "";
}

const MsgTensor *note_floats(const Message *m, const char *name, size_t elements)
{
    const MsgTensor *t = message_tensor(m, name);
    if (!t || t->dtype != MSG_F32 || t->bytes != elements * sizeof(float)) {
        err_set(ERR_DATA, "%s: tensor %s is not f32[%zu]", note_op(m), name, elements);
        return NULL;
    }
    return t;
}
