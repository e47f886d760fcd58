/* A device that computes nothing and counts what would be computed: what a step costs, known before it is
 * taken.
 *
 *     Backend *be = backend_open("dry,fp32");
 *     dry_reset();  student_forward(...);  dry_flops()
 *
 * "dry,fp32" counts for the processor, with its kernels for whole branches; "dry,bf16", "dry,tf32" and
 * "dry,gpu" (fp32) for a GPU, which puts branches together and keeps what flows between layers in its own
 * type. Memory is address space that nothing may touch; what is read from it is zero. One of each kind a
 * process; counts are common to all.
 *
 * A flop is an addition or a multiplication of a matrix product, a convolution or attention, as the
 * definition has it: what a kernel computes a second time, and all that is done element by element, is not
 * counted. */
#ifndef HSSL_DRY_H
#define HSSL_DRY_H

/* Forget what was counted so far. */
void dry_reset(void);
double dry_flops(void);

#endif
