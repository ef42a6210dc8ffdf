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

{{/* The image of operator and gateway: by digest where there is one, else by tag. */}}
{{- define "rfuav.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Where the pods of a Deployment go. In: the chart's root, the values, and the name of the template with its selector. */}}
{{- define "rfuav.scheduling" -}}
topologySpreadConstraints:
{{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include .selector .root | nindent 8 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A PriorityClass's value cannot change, so another value than the default makes a class of another name. */}}
{{- define "rfuav.trainingClass" -}}
rfuav-training{{ if ne (int64 .Values.priorityClasses.training) 1000 }}-{{ int64 .Values.priorityClasses.training }}{{ end }}
{{- end }}
{{- define "rfuav.inferenceClass" -}}
rfuav-inference{{ if ne (int64 .Values.priorityClasses.inference) 2000 }}-{{ int64 .Values.priorityClasses.inference }}{{ end }}
{{- end }}

{{/* The settings file: what the user gave, and what the chart alone knows. */}}
{{- define "rfuav.settings" -}}
{{- $given := deepCopy .Values.settings }}
{{- $own := dict
      "watchNamespaces" .Values.watchNamespaces
      "jobs" (dict "image" .Values.trainer.image)
      "progress" (dict "service" (include "rfuav.progress" .) "servicePort" 443 "port" 8443 "caSecret" (printf "%s-ca" (include "rfuav.progress" .)))
      "leader" (dict "lease" (include "rfuav.name" .))
      "health" (dict "port" 8080)
      "defaultPool" .Values.defaultPool }}
{{- if .Values.priorityClasses.enabled }}
{{- $_ := set $own.jobs "trainingPriority" .Values.priorityClasses.training }}
{{- $_ := set $own.jobs "inferencePriority" .Values.priorityClasses.inference }}
{{- $classes := dict "trainingPriorityClass" (include "rfuav.trainingClass" .) "inferencePriorityClass" (include "rfuav.inferenceClass" .) }}
{{- $_ := set $given "jobs" (merge $given.jobs $classes) }}
{{- end }}
{{- mergeOverwrite $given $own | toYaml }}
{{- end }}

{{- define "rfuav.gateway" -}}rfuav-gateway{{- end }}

{{/* Another name than the operator's, whose Deployment and Service select by it. */}}
{{- define "rfuav.gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rfuav.gateway" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rfuav.gateway.labels" -}}
{{ include "rfuav.gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The gateway's settings file: what the user gave, and what the chart alone knows. */}}
{{- define "rfuav.gateway.settings" -}}
{{- $own := dict
      "port" 8000 "healthPort" 8081
      "trainerImage" .Values.trainer.image
      "clusterAssignsUsers" .Values.settings.jobs.clusterAssignsUsers }}
{{- if .Values.gateway.tlsSecret }}
{{- $_ := set $own "tlsCertificate" "/etc/rfuav-gateway-tls/tls.crt" }}
{{- $_ := set $own "tlsKey" "/etc/rfuav-gateway-tls/tls.key" }}
{{- end }}
{{- if .Values.gateway.callbacksSecret }}
{{- $_ := set $own "callbacks" (dict "secretFile" "/etc/rfuav-gateway-callbacks/secret" "namespace" .Release.Namespace "name" (printf "%s-callbacks" (include "rfuav.gateway" .))) }}
{{- end }}
{{- mergeOverwrite (deepCopy .Values.gateway.settings) $own | toYaml }}
{{- end }}

{{/* The namespace in which the gateway writes jobs by itself; empty: in none. */}}
{{- define "rfuav.gateway.compatNamespace" -}}
{{- $compat := .Values.gateway.settings.compat }}
{{- if $compat.enabled }}
{{- if not $compat.namespace }}
{{- fail "gateway.settings.compat.enabled needs gateway.settings.compat.namespace: write the namespace of all its tasks" }}
{{- end }}
{{- if .Values.gateway.settings.proxy.addresses }}
{{- fail "gateway.settings.compat answers without credentials: disable it, or remove gateway.settings.proxy.addresses" }}
{{- end }}
{{- $compat.namespace }}
{{- end }}
{{- end }}
