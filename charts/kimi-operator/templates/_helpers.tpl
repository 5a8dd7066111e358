{{/* The release's own name, so that two releases with different watchNamespaces do not share cluster-wide objects. */}}
{{- define "kimi-operator.name" -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kimi-operator.selector" -}}
app.kubernetes.io/name: kimi-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kimi-operator.labels" -}}
{{ include "kimi-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
