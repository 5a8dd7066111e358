//! The KimiModel spec as plain data, for the operator and for kimi run; knows no Kubernetes client.
