// Memory without a libc: blocks of a power of two in free lists, so that the memory stays as large as it once had to
// be.
#include "probe.h"

enum { PAGE = 65536, LARGEST_CLASS = 30, CLASSES };

struct block {
  struct block *next;
  u32 class;
  u32 padding[2];  // keeps what follows aligned to 16 bytes
};

extern u8 __heap_base;

enum allocator_mode allocator_mode;
static struct block *free_blocks[CLASSES];
static struct block *scratch_blocks;
static u32 top;

void *memcpy(void *target, const void *source, size_t size) {
  u8 *to = target;
  for (const u8 *from = source; size > 0; size--) *to++ = *from++;
  return target;
}

void *memset(void *target, int value, size_t size) {
  for (u8 *to = target; size > 0; size--) *to++ = (u8)value;
  return target;
}

u32 memory_bytes(void) {
  return __builtin_wasm_memory_size(0) * PAGE;
}

static struct block *new_block(u32 class) {
  if (top == 0) top = ((u32)address(&__heap_base) + 15) & ~15u;
  u64 end = (u64)top + (1u << class);
  if (end > memory_bytes()) {
    u32 pages = (u32)((end - memory_bytes() + PAGE - 1) / PAGE);
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) return NULL;
  }
  struct block *block = (struct block *)(uintptr_t)top;
  top = (u32)end;
  block->class = class;
  return block;
}

static struct block *take_block(u32 size) {
  u32 class = 5;
  while (class <= LARGEST_CLASS && (1u << class) - sizeof(struct block) < size) class++;
  if (class > LARGEST_CLASS) return NULL;
  struct block *block = free_blocks[class];
  if (block == NULL) return new_block(class);
  free_blocks[class] = block->next;
  return block;
}

static void give_block(struct block *block) {
  block->next = free_blocks[block->class];
  free_blocks[block->class] = block;
}

void *allocate(u32 size) {
  struct block *block = take_block(size);
  return block == NULL ? NULL : block + 1;
}

void release(void *pointer) {
  if (pointer != NULL) give_block((struct block *)pointer - 1);
}

void *scratch(u32 size) {
  struct block *block = take_block(size);
  if (block == NULL) return NULL;
  block->next = scratch_blocks;
  scratch_blocks = block;
  return block + 1;
}

void release_scratch(void) {
  while (scratch_blocks != NULL) {
    struct block *block = scratch_blocks;
    scratch_blocks = block->next;
    give_block(block);
  }
}

// A host function that calls back into the guest while it is being called from there, once.
static void call_host_from_allocator(void) {
  static const char name[] = "plugin_name";
  u32 value, size;
  allocator_mode = ALLOCATOR_OK;
  proxy_get_property(address(name), sizeof(name) - 1, address(&value), address(&size));
  allocator_mode = ALLOCATOR_NESTED;
}

__attribute__((export_name("proxy_on_memory_allocate"))) void *proxy_on_memory_allocate(u32 size) {
  switch (allocator_mode) {
    case ALLOCATOR_OK:
      break;
    case ALLOCATOR_ZERO:
      return NULL;
    case ALLOCATOR_OOB:
      return (void *)0xfffffff0;
    case ALLOCATOR_TRAP:
      __builtin_trap();
    case ALLOCATOR_GROW: {
      // Where the host's old idea of the memory's size would refuse to write.
      u32 end = memory_bytes();
      if (__builtin_wasm_memory_grow(0, size / PAGE + 1) == (size_t)-1) return NULL;
      top = memory_bytes();
      return (void *)(uintptr_t)end;
    }
    case ALLOCATOR_NESTED:
      call_host_from_allocator();
      break;
  }
  return scratch(size);
}
