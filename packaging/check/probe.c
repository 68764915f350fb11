/* Loads the library with all symbols bound, and prints what it says of itself. */
#include <dlfcn.h>
#include <stdio.h>

#include "../../include/resty_proxy_wasm.h"

static void print(const char *name, rpw_result_t text) {
    printf("%s%.*s", name, (int)text.length, text.data);
}

int main(int argc, char **argv) {
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) {
        fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "usage: probe LIBRARY");
        return 1;
    }
    void (*version)(rpw_version_t *) = (void (*)(rpw_version_t *))dlsym(library, "rpw_version");
    if (!version) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    rpw_version_t built;
    version(&built);
    print("", built.version);
    print(" of commit ", built.commit);
    print(" with wasmtime ", built.wasmtime);
    print(" for ", built.target);
    printf("\n");
    return 0;
}
