/* Makes the k-th change of a folder go wrong: preloaded, it stands between a process and the C library.

   Counted are the calls below that change a path in the folder that `fault_arm` names. The checkpoint's library renames
   by system calls of its own; where the kernel lets them be trapped, they are counted as well. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { KILL_BEFORE = 1, KILL_AFTER, NO_SPACE, IO_ERROR, FULL, FILLING };
enum kind { WRITE, CREATE, OTHER };
enum act { GO = 0, HALF = -1, HALF_AND_DIE = -2, DIE_AFTER = -3 }; /* or an errno */

static char folder[PATH_MAX];
static long counted, target;
static int mode, half_written, log_fd = -1;

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static long refuse(int error) {
    errno = error;
    return -1;
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static void say(const char *call, const char *path) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", counted, call, path + strlen(folder));
    if (log_fd >= 0 && length > 0) syscall(SYS_write, log_fd, line, (size_t)length);
}

/* What becomes of a call: it goes on, in part, or fails with an errno; or nobody lives to see it. */
static int judge(const char *call, const char *path, enum kind kind) {
    if (!folder[0] || !below(path)) return GO;
    counted++;
    say(call, path);
    if (counted < target) return GO;
    if (mode == FULL) return kind == OTHER ? GO : ENOSPC;
    if (mode == FILLING) return kind != WRITE ? GO : half_written++ ? ENOSPC : HALF; /* empty files cost no space */
    if (counted > target) return GO;
    if (mode == KILL_BEFORE) die();
    if (mode == KILL_AFTER) return kind == WRITE ? HALF_AND_DIE : DIE_AFTER;
    return mode == NO_SPACE ? ENOSPC : mode == IO_ERROR ? EIO : GO;
}

static void link_target(const char *link, char *path) {
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
}

static void fd_path(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    link_target(link, path);
}

static int judge_fd(const char *call, int fd, enum kind kind) {
    char path[PATH_MAX];
    if (!folder[0]) return GO;
    fd_path(fd, path);
    return judge(call, path, kind);
}

static void absolute(int at, const char *name, char *path) {
    path[0] = '\0';
    if (name[0] != '/') {
        fd_path(at, path);
        strcat(path, "/");
    }
    strncat(path, name, PATH_MAX - 1);
}

static int judge_at(const char *call, int at, const char *name, enum kind kind) {
    char path[2 * PATH_MAX];
    if (!folder[0] || !name) return GO;
    absolute(at, name, path);
    return judge(call, path, kind);
}

static long done(int act, long result) {
    int error = errno;
    if (act == HALF_AND_DIE || act == DIE_AFTER) die();
    errno = error;
    return result;
}

#define PERFORM(act, call) ((act) > 0 ? refuse(act) : done((act), (call)))

static size_t part(int act, size_t size) { return act == HALF || act == HALF_AND_DIE ? (size + 1) / 2 : size; }

ssize_t write(int fd, const void *data, size_t size) {
    int act = judge_fd("write", fd, WRITE);
    return PERFORM(act, syscall(SYS_write, fd, data, part(act, size)));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    int act = judge_fd("pwrite", fd, WRITE);
    return PERFORM(act, syscall(SYS_pwrite64, fd, data, part(act, size), offset));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    int act = judge_fd("writev", fd, WRITE);
    if (count == 1) return PERFORM(act, syscall(SYS_write, fd, parts->iov_base, part(act, parts->iov_len)));
    return PERFORM(act, syscall(SYS_writev, fd, parts, (int)part(act, (size_t)count)));
}

int fsync(int fd) {
    int act = judge_fd("fsync", fd, OTHER);
    return (int)PERFORM(act, syscall(SYS_fsync, fd));
}

int fdatasync(int fd) {
    int act = judge_fd("fdatasync", fd, OTHER);
    return (int)PERFORM(act, syscall(SYS_fdatasync, fd));
}

int ftruncate(int fd, off_t length) {
    int act = judge_fd("ftruncate", fd, OTHER);
    return (int)PERFORM(act, syscall(SYS_ftruncate, fd, length));
}

/* Trapped are renameat and renameat2; what is let through goes by the older number, which takes no descriptors. */
static long renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
#ifdef __x86_64__
    char source[2 * PATH_MAX], goal[2 * PATH_MAX];
    if (flags) return refuse(EINVAL); /* what a file system without them says */
    absolute(from_at, from, source);
    absolute(to_at, to, goal);
    return syscall(SYS_rename, source, goal);
#else
    return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
#endif
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    int act = judge_at("rename", to_at, to, OTHER);
    return (int)PERFORM(act, renamed(from_at, from, to_at, to, flags));
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renameat2(from_at, from, to_at, to, 0);
}

int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *name, int flags) {
    int act = judge_at("unlink", at, name, OTHER);
    return (int)PERFORM(act, syscall(SYS_unlinkat, at, name, flags));
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

/* What is there already needs no room for its name. */
static enum kind naming(int at, const char *name) {
    return folder[0] && syscall(SYS_faccessat, at, name, F_OK) == 0 ? OTHER : CREATE;
}

int mkdirat(int at, const char *name, mode_t permissions) {
    int act = judge_at("mkdir", at, name, naming(at, name));
    return (int)PERFORM(act, syscall(SYS_mkdirat, at, name, permissions));
}

int mkdir(const char *name, mode_t permissions) { return mkdirat(AT_FDCWD, name, permissions); }

static int opened(int at, const char *name, int flags, mode_t permissions) {
    int act = flags & O_CREAT ? judge_at("create", at, name, naming(at, name)) : GO;
    return (int)PERFORM(act, syscall(SYS_openat, at, name, flags, permissions));
}

#define PERMISSIONS(flags)                                          \
    mode_t permissions = 0;                                         \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                          \
        va_list more;                                               \
        va_start(more, flags);                                      \
        permissions = va_arg(more, mode_t);                         \
        va_end(more);                                               \
    }

int open(const char *name, int flags, ...) {
    PERMISSIONS(flags)
    return opened(AT_FDCWD, name, flags, permissions);
}

int openat(int at, const char *name, int flags, ...) {
    PERMISSIONS(flags)
    return opened(at, name, flags, permissions);
}

int open64(const char *, int, ...) __attribute__((alias("open")));
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));
ssize_t pwrite64(int, const void *, size_t, off64_t) __attribute__((alias("pwrite")));
int ftruncate64(int, off64_t) __attribute__((alias("ftruncate")));

#ifdef __x86_64__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <ucontext.h>

static void trapped(int signum, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned flags = info->si_syscall == SYS_renameat2 ? (unsigned)registers[REG_R8] : 0;
    int result = renameat2((int)registers[REG_RDI], (const char *)registers[REG_RSI], (int)registers[REG_RDX],
                           (const char *)registers[REG_R10], flags);
    registers[REG_RAX] = result < 0 ? -errno : result;
    (void)signum;
}

static int trap(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
#else
static int trap(void) { return 0; }
#endif

/* From now on count what changes `name`, and let the k-th go wrong; say each on the descriptor `log`, if there is one.
   Returns whether the renames that bypass the C library are among them. */
int fault_arm(const char *name, long k, int how, int log) {
    int traps = trap();
    counted = half_written = 0;
    target = k, mode = how, log_fd = log;
    snprintf(folder, sizeof folder, "%s", name);
    return traps;
}

long fault_count(void) { return counted; }
