/* The same of CUDA's runtime. Memory is the CPU's; there are no kernels. What is asked of streams is written down. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define NOT_READY 600
#define INVALIDATED 901
static char asked[65536];
static void *capturing;
static long streams = 0x1000;
static int captures_fail, events_are_ready = 1;

const char *what_was_asked(void) { return asked; }
void forget_what_was_asked(void) { asked[0] = 0; }
void let_captures_fail(int fail) { captures_fail = fail; }
void let_events_be_ready(int ready) { events_are_ready = ready; }
static int note(const char *what, void *stream) {
    size_t length = strlen(asked);
    snprintf(asked + length, sizeof asked - length, "%s %ld\n", what, (long)stream);
    return 0;
}

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
const char *cudaGetErrorName(int error) { return "fake"; }
const char *cudaGetErrorString(int error) {
    return error == INVALIDATED ? "operation failed due to a previous error during capture" : "fake";
}
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaGetDeviceProperties(void *properties, int device) {
    memset(properties, 0, 1008);
    strcpy((char *)properties, "Fake GPU");
    return 0;
}
int cudaMalloc(void **memory, size_t size) { *memory = malloc(size); return 0; }
int cudaFree(void *memory) { free(memory); return 0; }
int cudaHostAlloc(void **memory, size_t size, unsigned flags) { *memory = malloc(size); return 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = (size_t)8 << 30; return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    memcpy(to, from, size);
    return note("copy", stream);
}
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
int cudaDeviceSynchronize(void) { return 0; }
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    *stream = (void *)(streams += 16);
    return 0;
}
int cudaStreamQuery(void *stream) { return 0; }
int cudaStreamSynchronize(void *stream) { return note("synchronize", stream); }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { return note("wait", stream); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = (void *)1; return 0; }
int cudaEventRecord(void *event, void *stream) { return 0; }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { return 0; }
int cudaEventQuery(void *event) { return events_are_ready ? 0 : NOT_READY; }
int cudaEventDestroy(void *event) { return 0; }
int cudaEventSynchronize(void *event) { return 0; }
int cudaThreadExchangeStreamCaptureMode(int *mode) { return 0; }
int cudaStreamBeginCapture(void *stream, int mode) {
    capturing = stream;
    return note(mode == 1 ? "capture thread_local" : "capture", stream);
}
int cudaStreamIsCapturing(void *stream, int *status) { *status = capturing && stream == capturing; return 0; }
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id, void **graph, void **dependencies,
                             void **edges, size_t *count) {
    *status = capturing && stream == capturing;
    if (id) *id = 7;
    if (graph) *graph = NULL;
    if (dependencies) *dependencies = NULL;
    if (count) *count = 0;
    return 0;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    capturing = NULL;
    *graph = captures_fail ? NULL : (void *)1;
    return captures_fail ? INVALIDATED : 0;
}
int cudaGraphGetNodes(void *graph, void **nodes, size_t *count) { *count = 1; return 0; }
int cudaGraphInstantiateWithFlags(void **run, void *graph, unsigned long long flags) { *run = (void *)1; return 0; }
int cudaGraphLaunch(void *run, void *stream) { return note("launch", stream); }
int cudaGraphDestroy(void *graph) { return 0; }
int cudaGraphExecDestroy(void *run) { return 0; }
