/* What needs to know which allocator the program has. The linker leaves mimalloc's functions null where it is not a part of it. */
#include <malloc.h>
#include <stdbool.h>

__attribute__((weak)) void mi_collect(bool force);
__attribute__((weak)) bool mi_is_in_heap_region(const void *pointer);

/* Gives memory that was freed back to the operating system. */
void clamgate_release_free_memory(void)
{
    if (mi_collect)
        mi_collect(true);
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* Whether an allocation came from mimalloc. */
int clamgate_is_mimallocs(const void *pointer)
{
    return mi_is_in_heap_region && mi_is_in_heap_region(pointer);
}
