// A plugin of QEMU's translator that counts the instructions of a guest with one virtual CPU: what a machine with other
// load cannot change. The count is the first eight bytes of the file given as `count=PATH`, and can be read at any time.
//
// The declarations are those of version 1 of the plugin interface (docs/devel/tcg-plugins.rst of QEMU), which needs no
// library. QEMU has it up to 8.2: version 2, which 9.0 and later require, counts in memory of QEMU's own for each virtual CPU,
// and no other process can read the count there at any time.
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct block;
enum operation { ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct block *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, void (*translated)(uint64_t plugin, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, enum operation, void *counter, uint64_t increment);

int qemu_plugin_version = 1;

static uint64_t *count;

static void translated(uint64_t plugin, struct block *block) {
  (void)plugin;
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, count, qemu_plugin_tb_n_insns(block));
}

int qemu_plugin_install(uint64_t plugin, const void *machine, int argc, char **argv) {
  static const char key[] = "count=";
  (void)machine;
  if (argc != 1 || strncmp(argv[0], key, sizeof key - 1) != 0) return -1;
  int file = open(argv[0] + sizeof key - 1, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof *count) != 0) return -1;
  count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (count == MAP_FAILED) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
  return 0;
}
