/* replay.c - runs the inputs of a directory once each, with any compiler; says which one if it
 * dies, and ends itself if one takes too long. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "segment.h"

static char name[512];

static void on_death(int number)
{
    static const char what[] = "replay: died of, or hung in: ";
    (void)!write(2, what, sizeof what - 1);
    (void)!write(2, name, strlen(name));
    (void)!write(2, "\n", 1);
    signal(number, SIG_DFL);
    raise(number);
}

int main(int argc, char **argv)
{
    static uint8_t bytes[1 << 16];
    static const int deaths[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
    int count = 0;
    DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
    if (directory == NULL) {
        fprintf(stderr, "usage: replay DIRECTORY\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof deaths / sizeof deaths[0]; i++)
        signal(deaths[i], on_death);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", argv[1], entry->d_name);
        FILE *file = fopen(name, "rb");
        if (file == NULL)
            return 2;
        size_t n = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        alarm(10);
        LLVMFuzzerTestOneInput(bytes, n);
        alarm(0);
        count++;
    }
    closedir(directory);
    printf("fuzz: %d inputs replayed\n", count);
    return count > 0 ? 0 : 1;
}
