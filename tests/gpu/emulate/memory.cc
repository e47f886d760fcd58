#include "memory.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <iterator>
#include <map>
#include <mutex>

namespace {

enum { PAGE = 4096 };
const size_t SPACE = (size_t)4 << 30; /* address space; the kernel backs what is used */

struct Handle {
    char magic[8];
    int64_t pid, fd;
    uint64_t offset, bytes;
};
const char MAGIC[8] = { 'e', 'm', 'u', 'l', 'a', 't', 'e', 'd' };

std::recursive_mutex guard;
char *space, *beside; /* the same memory twice */
int file = -1;
std::map<size_t, size_t> holes; /* free bytes, by offset */
std::map<char *, size_t> taken, borrowed; /* bytes, by address */
std::map<char *, char *> beside_borrowed;
int depth; /* of calls of the table */
bool guarded;

size_t pages(size_t bytes)
{
    return (bytes + PAGE) / PAGE * PAGE;
}

/* HSSL_EMULATE_MEMORY: how many bytes the device has. */
size_t limit()
{
    const char *given = getenv("HSSL_EMULATE_MEMORY");
    size_t n = given ? (size_t)strtoull(given, NULL, 10) / PAGE * PAGE : SPACE;
    return n < SPACE ? n : SPACE;
}

bool make_space()
{
    if (space)
        return true;
    file = memfd_create("emulated-gpu", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, SPACE))
        return false;
    void *p = mmap(NULL, SPACE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    void *again = mmap(NULL, SPACE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (p == MAP_FAILED || again == MAP_FAILED)
        return false;
    space = (char *)p;
    beside = (char *)again;
    holes[0] = limit();
    return true;
}

void protect(int how)
{
    if (space)
        mprotect(space, SPACE, how);
    for (auto &b : borrowed)
        mprotect(b.first, b.second, how);
}

/* While one of these lives, the memory can be reached. */
struct Reach {
    Reach()
    {
        guard.lock();
        if (guarded && depth++ == 0)
            protect(PROT_READ | PROT_WRITE);
    }
    ~Reach()
    {
        if (guarded && --depth == 0)
            protect(PROT_NONE);
        guard.unlock();
    }
};

void caught(int, siginfo_t *info, void *)
{
    char *p = (char *)info->si_addr;
    if (space && p >= space && p < space + SPACE) {
        static const char text[] = "emulated GPU: its memory was touched from outside of the table\n";
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
            _exit(139);
    }
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* A large piece at both ends only: pages that nobody touches cost nothing, and the guard walks all others. */
void poison(char *p, size_t bytes)
{
    const size_t most = 4 << 20;
    if (bytes > 2 * most)
        memset(p + bytes - most, 0xff, most);
    memset(p, 0xff, bytes > 2 * most ? most : bytes);
}

} // namespace

void *memory_take(size_t bytes)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    size_t want = pages(bytes);
    if (make_space())
        for (auto h = holes.begin(); h != holes.end(); ++h)
            if (h->second >= want) {
                size_t at = h->first, left = h->second - want;
                holes.erase(h);
                if (left)
                    holes[at + want] = left;
                poison(space + at, want);
                taken[space + at] = bytes;
                return space + at;
            }
    return NULL;
}

bool memory_release(void *p)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    auto found = taken.find((char *)p);
    if (found == taken.end())
        return false;
    size_t at = (size_t)((char *)p - space), n = pages(found->second);
    taken.erase(found);
    auto next = holes.lower_bound(at);
    if (next != holes.end() && next->first == at + n) {
        n += next->second;
        next = holes.erase(next);
    }
    if (next != holes.begin() && (--next)->first + next->second == at)
        next->second += n;
    else
        holes[at] = n;
    return true;
}

void memory_left(size_t *left, size_t *all)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    *all = limit();
    *left = 0;
    make_space();
    for (auto &h : holes)
        *left += h.second;
}

static bool within(const std::map<char *, size_t> &pieces, const char *p, size_t bytes)
{
    auto piece = pieces.upper_bound((char *)p);
    return piece != pieces.begin() && (--piece, p + bytes <= piece->first + piece->second);
}

bool memory_holds(const void *p, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    return !guarded || within(taken, (const char *)p, bytes) || within(borrowed, (const char *)p, bytes);
}

bool memory_lacks(const void *p, size_t bytes)
{
    return !guarded || !memory_holds(p, bytes);
}

void *memory_beside(void *device, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    char *p = (char *)device;
    if (within(taken, p, bytes))
        return beside + (p - space);
    if (!within(borrowed, p, bytes))
        return NULL;
    char *first = std::prev(borrowed.upper_bound(p))->first;
    return beside_borrowed[first] + (p - first);
}

bool memory_lend(const void *p, void *handle, size_t bytes_of_handle)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    auto found = taken.find((char *)(uintptr_t)p);
    if (found == taken.end() || getenv("HSSL_EMULATE_NO_IPC"))
        return false;
    Handle h = { {}, getpid(), file, (uint64_t)(found->first - space), found->second };
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    memset(handle, 0, bytes_of_handle);
    memcpy(handle, &h, sizeof h);
    return true;
}

void *memory_borrow(const void *handle)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    Handle h;
    char path[64];
    memcpy(&h, handle, sizeof h);
    if (memcmp(h.magic, MAGIC, sizeof MAGIC) || h.offset % PAGE || h.bytes > SPACE || h.offset > SPACE - h.bytes)
        return NULL;
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)h.pid, (long long)h.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *p[2] = { MAP_FAILED, MAP_FAILED };
    for (int i = 0; fd >= 0 && i < 2; i++)
        p[i] = mmap(NULL, pages(h.bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)h.offset);
    if (fd >= 0)
        close(fd);
    if (p[0] == MAP_FAILED || p[1] == MAP_FAILED)
        return NULL;
    borrowed[(char *)p[0]] = pages(h.bytes);
    beside_borrowed[(char *)p[0]] = (char *)p[1];
    return p[0];
}

bool memory_give_back(void *p)
{
    std::lock_guard<std::recursive_mutex> lock(guard);
    auto found = borrowed.find((char *)p);
    if (found == borrowed.end())
        return false;
    munmap(p, found->second);
    munmap(beside_borrowed[(char *)p], found->second);
    beside_borrowed.erase((char *)p);
    borrowed.erase(found);
    return true;
}

/* ---- each function of a table, with the memory within its reach */

namespace {

Backend inner;

template <auto Function> struct Guarded;
template <typename R, typename... A, R (*Backend::*Function)(Backend *, A...)> struct Guarded<Function> {
    static R call(Backend *be, A... a)
    {
        Reach reach;
        return (inner.*Function)(be, a...);
    }
};

template <auto... Function> void guard_all(Backend *be)
{
    ((be->*Function = be->*Function ? Guarded<Function>::call : NULL), ...);
}

} // namespace

void memory_guard(Backend *be)
{
    if (!getenv("HSSL_EMULATE_GUARD"))
        return;
    typedef Backend B;
    inner = *be;
    guarded = true;
    guard_all<&B::alloc, &B::release, &B::rest, &B::write, &B::read, &B::move, &B::zero, &B::upload, &B::borrow,
              &B::give_back, &B::repeat, &B::matmul, &B::colsum, &B::mlp, &B::mlp_backward, &B::attention, &B::attention_backward,
              &B::conv, &B::conv_backward, &B::patches, &B::patches_backward, &B::normalize_u8, &B::cast, &B::copy,
              &B::reduce, &B::transpose, &B::tokens, &B::resize, &B::resize_backward, &B::add, &B::mul, &B::gelu,
              &B::gelu_backward, &B::add_scalar, &B::scale, &B::residual, &B::residual_norm, &B::residual_norm_backward, &B::layer_norm,
              &B::layer_norm_backward, &B::l2_normalize,
              &B::l2_normalize_backward, &B::weight_norm, &B::weight_norm_backward, &B::softmax, &B::softmax_backward,
              &B::log_softmax, &B::log_softmax_backward, &B::dino_loss, &B::soft_ce, &B::hard_ce, &B::kl, &B::norms, &B::adamw, &B::ema,
              &B::targets, &B::center, &B::discrepancy, &B::all_finite>(be);
    struct sigaction a = {};
    a.sa_sigaction = caught;
    a.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &a, NULL);
}
