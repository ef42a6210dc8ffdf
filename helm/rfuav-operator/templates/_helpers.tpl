{{/* One operator serves a cluster, so names do not follow the release. */}}
{{- define "rfuav.name" -}}rfuav-operator{{- end }}

{{- define "rfuav.progress" -}}{{ include "rfuav.name" . }}-progress{{- end }}

{{- define "rfuav.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rfuav.labels" -}}
{{ include "rfuav.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The settings file: what the user gave, and what the chart alone knows. */}}
{{- define "rfuav.settings" -}}
{{- $own := dict
      "jobs" (dict "image" .Values.trainer.image)
      "progress" (dict "service" (include "rfuav.progress" .) "servicePort" 443 "port" 8443 "caSecret" (printf "%s-ca" (include "rfuav.progress" .)))
      "leader" (dict "lease" (include "rfuav.name" .))
      "health" (dict "port" 8080)
      "defaultPool" .Values.defaultPool }}
{{- if .Values.priorityClasses.enabled }}
{{- $_ := set $own.jobs "trainingPriority" .Values.priorityClasses.training }}
{{- $_ := set $own.jobs "inferencePriority" .Values.priorityClasses.inference }}
{{- end }}
{{- mergeOverwrite (deepCopy .Values.settings) $own | toYaml }}
{{- end }}
