// Streams, events, host functions and graphs.
#include "state.h"

using namespace mock_runtime;

namespace {

cudaError_t record(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  CUstream_st& on = find(stream);
  const auto time = std::make_shared<Clock::time_point>();
  if (on.captured == nullptr) {
    submit(stream, [time] { *time = Clock::now(); });
  }
  *event = {&on, on.end(), on.captured, time};
  return cudaSuccess;
}

cudaError_t new_stream(cudaStream_t* stream) {
  const Lock lock(runtime().mutex);
  *stream = new CUstream_st;
  (*stream)->device = current_device;
  runtime().streams.insert(*stream);
  return cudaSuccess;
}

}  // namespace

extern "C" {

// Streams and events.

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return new_stream(stream);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return new_stream(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  finish(*stream, stream->end());
  runtime().streams.erase(stream);
  return cudaSuccess;  // events may still point to it
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  CUstream_st& on = find(stream);
  return finish(on, on.end());
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return cudaStreamSynchronize(stream);  // as though it had just finished
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return record(event, stream);
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return record(event, stream);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  if (event->captured != nullptr) {
    return fail(cudaErrorCapturedEvent);
  }
  if (event->stream != nullptr && event->stream->captured == nullptr) {
    event->stream->run_until(event->position);
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return cudaEventSynchronize(event);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  if (start->time == nullptr || stop->time == nullptr) {
    return fail(cudaErrorInvalidResourceHandle);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*stop->time - *start->time).count();
  return cudaSuccess;
}
// A stream that waits for captured work joins the capture.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(runtime().mutex);
  CUstream_st& on = find(stream);
  if (event->captured != nullptr) {
    if (event->stream->captured != event->captured) {
      return fail(cudaErrorCapturedEvent);
    }
    if (on.is_default) {
      return fail(cudaErrorStreamCaptureImplicit);
    }
    on.captured = event->captured;
    return cudaSuccess;
  }
  if (on.captured != nullptr) {
    return event->stream == nullptr ? cudaSuccess : fail(cudaErrorStreamCaptureIsolation);
  }
  if (event->stream == nullptr || event->stream == &on) {
    return cudaSuccess;
  }
  return submit(
      stream, [from = event->stream, position = event->position] { from->run_until(position); });
}

// Work.

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  if (find(stream).device != current_device) {
    return fail(cudaErrorInvalidResourceHandle);  // as for a kernel, which this stands for
  }
  return submit(stream, [=] { function(data); });
}

// Graphs.

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(runtime().mutex);
  CUstream_st& on = find(stream);
  if (on.is_default || on.captured != nullptr) {
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  on.run_until(on.end());
  on.captured = new CUgraph_st;
  on.captures_first = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(runtime().mutex);
  CUstream_st& on = find(stream);
  *graph = on.captured;
  if (!on.captures_first) {
    return fail(cudaErrorStreamCaptureUnmatched);
  }
  on.captures_first = false;
  for (CUstream_st* joined : runtime().streams) {
    if (joined->captured == *graph) {
      joined->captured = nullptr;
    }
  }
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Lock lock(runtime().mutex);
  *status = find(stream).captured != nullptr ? cudaStreamCaptureStatusActive
                                             : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream,
    cudaStreamCaptureStatus* status,
    unsigned long long* id,
    cudaGraph_t* graph,
    const cudaGraphNode_t** dependencies,
    const cudaGraphEdgeData** edges,
    size_t* dependency_count) {
  cudaStreamIsCapturing(stream, status);
  const auto set = [](auto* to, auto value) {
    if (to != nullptr) {
      *to = value;
    }
  };
  CUgraph_st* captured = find(stream).captured;
  set(id, static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(captured)));
  set(graph, captured);
  set(dependencies, nullptr);
  set(edges, nullptr);
  set(dependency_count, size_t{0});
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;
  std::swap(*mode, current);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(
    cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(
    cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(executable, graph, flags);
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = graph->work.size();
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  for (const Work& work : executable->work) {
    submit(stream, work);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  finish_all(current_device);
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
