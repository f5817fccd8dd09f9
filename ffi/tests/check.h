/* What the C tests stand on: checks that name their line, an empty directory, a watchdog. */
#ifndef CHECK_H
#define CHECK_H

#include <flowmesh.h>

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WATCHDOG_SECONDS = 120, SOON_MS = 20000 };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n  last error: %s\n", __FILE__, __LINE__, #condition, \
                    flowmesh_error_message());                                                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The status of `call` is `code`, and so is the thread's last error. */
#define CHECK_STATUS(code, call) check_status(__FILE__, __LINE__, #call, (code), (call))
#define CHECK_OK(call) CHECK_STATUS(FLOWMESH_OK, call)

static inline void check_status(const char *file, int line, const char *text, flowmesh_status wanted,
                                flowmesh_status got)
{
    if (got != wanted || (got != FLOWMESH_OK && flowmesh_error_code() != got)) {
        fprintf(stderr, "%s:%d: %s: wanted %s, got %s: %s\n", file, line, text, flowmesh_status_name(wanted),
                flowmesh_status_name(got), flowmesh_error_message());
        exit(1);
    }
}

#define CHECK_TEXT(wanted, text)                                                                      \
    do {                                                                                              \
        flowmesh_text check_text = (text);                                                            \
        if (check_text.data == NULL || strcmp(check_text.data, (wanted)) != 0 ||                      \
            check_text.size != strlen(wanted)) {                                                      \
            fprintf(stderr, "%s:%d: %s: wanted \"%s\", got \"%s\"\n", __FILE__, __LINE__, #text, (wanted), \
                    check_text.data == NULL ? "(none)" : check_text.data);                            \
            exit(1);                                                                                  \
        }                                                                                             \
    } while (0)

#define CHECK_BYTES(wanted, bytes)                                                                 \
    do {                                                                                           \
        flowmesh_bytes check_bytes = (bytes);                                                      \
        if (check_bytes.size != strlen(wanted) ||                                                  \
            (check_bytes.size > 0 && memcmp(check_bytes.data, (wanted), check_bytes.size) != 0)) { \
            fprintf(stderr, "%s:%d: %s: wanted \"%s\", got %zu bytes: \"%.*s\"\n", __FILE__, __LINE__, #bytes, \
                    (wanted), check_bytes.size, (int)check_bytes.size,                             \
                    check_bytes.size == 0 ? "" : (const char *)check_bytes.data);                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static char check_directory[64];

static inline void check_clean_up(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", check_directory);
    if (check_directory[0] != '\0' && system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", check_directory);
}

/* A new empty directory, removed when this process ends. */
static inline const char *check_start(void)
{
    alarm(WATCHDOG_SECONDS);
    strcpy(check_directory, "/tmp/fmcXXXXXX");
    if (mkdtemp(check_directory) == NULL) {
        perror("mkdtemp");
        exit(1);
    }
    atexit(check_clean_up);
    return check_directory;
}

/* The test is over: everything was freed. */
static inline int check_end(const char *name)
{
    if (flowmesh_handle_count() != 0) {
        fprintf(stderr, "%s: %zu handles were not freed\n", name, flowmesh_handle_count());
        return 1;
    }
    printf("ok %s\n", name);
    return 0;
}

static inline void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static inline long long now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* Whether `fd` is readable within `timeout_ms`. */
static inline int readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {fd, POLLIN, 0};
    return poll(&poll_fd, 1, timeout_ms) == 1 && (poll_fd.revents & POLLIN) != 0;
}

/* A forked child that ends with the status of `run`; it does not run the parent's exit handlers. */
static inline pid_t spawn(int (*run)(void *), void *argument)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(WATCHDOG_SECONDS);
        check_directory[0] = '\0';
        int status = run(argument);
        fflush(NULL);
        _exit(status);
    }
    return child;
}

static inline int exit_status(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
