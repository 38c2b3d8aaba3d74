{{/* What follows from the values: one question each, so that every template has the same answer. "true" stands for yes and nothing for no. */}}

{{/* The seconds of a duration such as 1m30s. */}}
{{- define "fairlead.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" . -1 -}}
{{- $sum = addf $sum (mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* How long a pod may take to stop. */}}
{{- define "fairlead.drainSeconds" -}}
{{- $drain := .Values.config.drain | default dict -}}
{{- $delay := include "fairlead.seconds" ($drain.delay | default "10s") | float64 -}}
{{- $grace := include "fairlead.seconds" ($drain.grace | default "30s") | float64 -}}
{{- addf $delay $grace | ceil | int -}}
{{- end -}}

{{- define "fairlead.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "fairlead.drainSeconds" . | int) 5 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}
{{- end -}}

{{/* The ports in the pod. */}}
{{- define "fairlead.httpPort" -}}
{{- .Values.ports.http.containerPort | default (.Values.hostNetwork | ternary 80 8080) | int -}}
{{- end -}}
{{- define "fairlead.httpsPort" -}}
{{- .Values.ports.https.containerPort | default (.Values.hostNetwork | ternary 443 8443) | int -}}
{{- end -}}
{{- define "fairlead.adminPort" -}}
{{- .Values.ports.admin.containerPort | int -}}
{{- end -}}

{{/* From the ports that Ingresses are served on to those in the pod. */}}
{{- define "fairlead.portMap" -}}
{{- $ingress := .Values.config.ingress | default dict -}}
{{- printf "%d:%s,%d:%s" ($ingress.httpPort | default 80 | int) (include "fairlead.httpPort" .) ($ingress.httpsPort | default 443 | int) (include "fairlead.httpsPort" .) -}}
{{- end -}}

{{/* Whether ports of the node are taken, so that two pods cannot be on one node. */}}
{{- define "fairlead.usesHostPorts" -}}
{{- if or .Values.hostNetwork .Values.ports.http.hostPort .Values.ports.https.hostPort -}}true{{- end -}}
{{- end -}}

{{/* Whether a port below 1024 is bound. */}}
{{- define "fairlead.bindsPrivileged" -}}
{{- if or (lt (include "fairlead.httpPort" . | int) 1024) (lt (include "fairlead.httpsPort" . | int) 1024) (lt (include "fairlead.adminPort" . | int) 1024) -}}true{{- end -}}
{{- end -}}

{{/* Whether there may be more than one pod for longer than an update takes. */}}
{{- define "fairlead.several" -}}
{{- if or (eq .Values.kind "DaemonSet") .Values.autoscaling.enabled (kindIs "invalid" .Values.replicas) -}}
true
{{- else if gt (.Values.replicas | int) 1 -}}
true
{{- end -}}
{{- end -}}

{{- define "fairlead.wantsDisruptionBudget" -}}
{{- if eq (toString .Values.podDisruptionBudget.enabled) "auto" -}}
{{- if and (eq .Values.kind "Deployment") (include "fairlead.several" .) -}}
{{- if not (and .Values.autoscaling.enabled (lt (.Values.autoscaling.minReplicas | int) 2)) -}}true{{- end -}}
{{- end -}}
{{- else if .Values.podDisruptionBudget.enabled -}}
true
{{- end -}}
{{- end -}}

{{- define "fairlead.wantsGatewayClass" -}}
{{- if eq (toString .Values.gatewayClass.create) "auto" -}}
{{- if and .Values.rbac.clusterScope (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/GatewayClass") -}}true{{- end -}}
{{- else if .Values.gatewayClass.create -}}
true
{{- end -}}
{{- end -}}

{{/* Whether Gateways get Services of their own. */}}
{{- define "fairlead.provisions" -}}
{{- if eq .Values.gateway.addresses "service" -}}true{{- end -}}
{{- end -}}

{{- define "fairlead.gatewayServiceType" -}}
{{- .Values.gateway.serviceType | default .Values.service.type -}}
{{- end -}}

{{/* The Service whose addresses the status of Ingresses shows, as namespace/name; nothing if the configuration has the addresses. */}}
{{- define "fairlead.publishService" -}}
{{- if .Values.publishService -}}
{{- .Values.publishService -}}
{{- else if and .Values.service.enabled (not .Values.config.publishAddresses) -}}
{{- printf "%s/%s" .Release.Namespace (include "fairlead.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* A Service of Fairlead's pods, as namespace/name, if these take ports of their nodes, on every address of them, and nothing else leads to them. */}}
{{- define "fairlead.hostService" -}}
{{- if and (include "fairlead.usesHostPorts" .) (not (or .Values.ports.http.hostIP .Values.ports.https.hostIP)) (not .Values.config.publishAddresses) (not (include "fairlead.publishService" .)) -}}
{{- printf "%s/%s-admin" .Release.Namespace (include "fairlead.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Whether there are Services of type NodePort whose addresses nobody says. */}}
{{- define "fairlead.usesNodePorts" -}}
{{- if not .Values.config.publishAddresses -}}
{{- if or (and .Values.service.enabled (eq .Values.service.type "NodePort")) (and (include "fairlead.provisions" .) (eq (include "fairlead.gatewayServiceType" .) "NodePort")) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether nodes are read, for their addresses. */}}
{{- define "fairlead.publishesNodes" -}}
{{- if eq (toString .Values.publishNodes) "auto" -}}
{{- if and .Values.rbac.create .Values.rbac.clusterScope (or (include "fairlead.hostService" .) (include "fairlead.usesNodePorts" .)) -}}true{{- end -}}
{{- else if .Values.publishNodes -}}
true
{{- end -}}
{{- end -}}

{{/* From the ports of listeners to those of nodes, unless a Service leads to the same pods on ports of its own. */}}
{{- define "fairlead.hostPorts" -}}
{{- if not (or .Values.hostNetwork (and .Values.service.enabled (include "fairlead.provisions" .))) -}}
{{- $ingress := .Values.config.ingress | default dict -}}
{{- $pairs := list -}}
{{- with .Values.ports.http.hostPort -}}{{- $pairs = append $pairs (printf "%d:%d" ($ingress.httpPort | default 80 | int) (. | int)) -}}{{- end -}}
{{- with .Values.ports.https.hostPort -}}{{- $pairs = append $pairs (printf "%d:%d" ($ingress.httpsPort | default 443 | int) (. | int)) -}}{{- end -}}
{{- join "," $pairs -}}
{{- end -}}
{{- end -}}

{{/* 90 % of the memory limit in bytes; nothing without a limit. */}}
{{- define "fairlead.memoryLimit" -}}
{{- $limits := (.Values.resources | default dict).limits | default dict -}}
{{- if $limits.memory -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- if kindIs "string" $limits.memory -}}
{{- $unit := regexFind "[A-Za-z]*$" $limits.memory -}}
{{- if or (not (hasKey $units $unit)) (not (regexMatch "^[0-9]+(\\.[0-9]+)?[A-Za-z]*$" $limits.memory)) -}}
{{- fail (printf "resources.limits.memory: %q is not a size such as 512Mi" $limits.memory) -}}
{{- end -}}
{{- mulf (regexFind "^[0-9.]+" $limits.memory | float64) (get $units $unit) 0.9 | floor | int64 -}}
{{- else -}}
{{- mulf ($limits.memory | float64) 0.9 | floor | int64 -}}
{{- end -}}
{{- end -}}
{{- end -}}
