/* exp and the normal distribution as polynomials that compilers turn into vector code. */
#ifndef HSSL_CPU_MATH_H
#define HSSL_CPU_MATH_H

#include <stdint.h>

/* exp(x), relative error below 1.5e-7; 1.2e-38, the least normal number, below -87.3; NaN stays NaN. Cephes'
 * polynomial. */
static inline float exp_poly(float x)
{
    x = x < -87.33654f ? -87.33654f : x;
    x = x > 88.37626f ? 88.37626f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* to the nearest integer */
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    union { uint32_t i; float f; } two = { ((uint32_t)(int32_t)n + 127u) << 23 };
    return p * two.f;
}

/* Phi(-|x|) = exp(-x^2 / 2) q(1 / (1 + 0.3 |x|)), q a fit to erfcx of relative error 1.5e-7. *density is
 * exp(-x^2 / 2). */
static inline float normal_tail(float x, float *density)
{
    float t = 1.0f / (1.0f + 0.3f * __builtin_fabsf(x));
    float q = 0.0356765699f;
    q = q * t - 0.157210781f;
    q = q * t + 0.206367112f;
    q = q * t - 0.0536964522f;
    q = q * t + 0.128568537f;
    q = q * t + 0.0999113628f;
    q = q * t + 0.120754302f;
    q = q * t + 0.119629276f;
    *density = exp_poly(-0.5f * x * x);
    return *density * (q * t);
}

/* gelu(x) = x Phi(x) [Hendrycks 2016] */
static inline float gelu_value(float x)
{
    float density, tail = normal_tail(x, &density);
    return x * (x < 0 ? tail : 1.0f - tail);
}

/* gelu'(x) = Phi(x) + x phi(x) */
static inline float gelu_slope(float x, float *value)
{
    float density, tail = normal_tail(x, &density);
    float below = x < 0 ? tail : 1.0f - tail;
    *value = x * below;
    return below + x * density * 0.398942280f;
}

#endif
