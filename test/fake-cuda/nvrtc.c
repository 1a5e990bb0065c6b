// NVRTC that compiles nothing: a cubin is ELF's mark, the options and the source. A source with a line "#error .." does not compile.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMPILATION_FAILED = 6, INVALID_PROGRAM = 4 };
enum { HEAD = 64 };

typedef struct {
  char *source, *name, *log, *image;
  size_t bytes;
} Program;

static int compiled, programs;

/** How often something was compiled; programs that were not destroyed. */
int fakeCompiled(void) { return compiled; }
int fakePrograms(void) { return programs; }

static char *copyOf(const char *text) { return strcpy(malloc(strlen(text) + 1), text); }

int nvrtcVersion(int *major, int *minor) {
  *major = 12;
  *minor = 9;
  return 0;
}
const char *nvrtcGetErrorString(int result) { return result == COMPILATION_FAILED ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcCreateProgram(Program **program, const char *source, const char *name, int count, const char **headers,
                       const char **names) {
  (void)headers, (void)names;
  if (count != 0) return INVALID_PROGRAM;
  *program = calloc(1, sizeof **program);
  (*program)->source = copyOf(source);
  (*program)->name = copyOf(name);
  programs++;
  return 0;
}
int nvrtcCompileProgram(Program *program, int count, const char **options) {
  compiled++;
  const char *error = strstr(program->source, "#error");
  if (error) {
    program->log = malloc(strlen(program->name) + strlen(error) + 16);
    sprintf(program->log, "%s(1): error: %s", program->name, error);
    return COMPILATION_FAILED;
  }
  program->bytes = HEAD + strlen(program->source);
  for (int i = 0; i < count; i++) program->bytes += strlen(options[i]) + 1;
  program->image = calloc(1, program->bytes + 1);
  memcpy(program->image, "\x7f" "ELF", 4);
  char *at = program->image + HEAD;
  for (int i = 0; i < count; i++) at += sprintf(at, "%s\n", options[i]);
  strcpy(at, program->source);
  return 0;
}
int nvrtcGetProgramLogSize(Program *program, size_t *bytes) {
  *bytes = (program->log ? strlen(program->log) : 0) + 1;
  return 0;
}
int nvrtcGetProgramLog(Program *program, char *log) {
  strcpy(log, program->log ? program->log : "");
  return 0;
}
int nvrtcGetCUBINSize(Program *program, size_t *bytes) {
  *bytes = program->bytes;
  return program->image ? 0 : INVALID_PROGRAM;
}
int nvrtcGetCUBIN(Program *program, char *image) {
  memcpy(image, program->image, program->bytes);
  return 0;
}
// text: a comment and a version, as PTX begins, then the same
static const char PTX_HEAD[] = "//\n.version 8.8\n";
int nvrtcGetPTXSize(Program *program, size_t *bytes) {
  *bytes = strlen(PTX_HEAD) + program->bytes - HEAD + 1;
  return program->image ? 0 : INVALID_PROGRAM;
}
int nvrtcGetPTX(Program *program, char *text) {
  strcpy(text, PTX_HEAD);
  memcpy(text + strlen(PTX_HEAD), program->image + HEAD, program->bytes - HEAD + 1);
  return 0;
}
int nvrtcDestroyProgram(Program **program) {
  free((*program)->source);
  free((*program)->name);
  free((*program)->log);
  free((*program)->image);
  free(*program);
  *program = NULL;
  programs--;
  return 0;
}
int nvrtcGetNumSupportedArchs(int *count) {
  *count = 3;
  return 0;
}
int nvrtcGetSupportedArchs(int *architectures) {
  memcpy(architectures, (int[]){80, 86, 90}, 3 * sizeof(int));
  return 0;
}
