//! The operator: knows Kubernetes, never links the engine, the HTTP server or CUDA.
