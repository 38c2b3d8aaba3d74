{{/* The rules of the roles: what Fairlead uses, and nothing else. */}}

{{/* What it reads and writes of the namespaces that it serves. Objects with a status are read again when it is written. */}}
{{- define "fairlead.rules.served" -}}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, listenersets, httproutes, grpcroutes, tlsroutes, tcproutes, udproutes, backendtlspolicies]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.x-k8s.io] # the experimental channel
  resources: [xbackendtrafficpolicies]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackendtrafficpolicies/status]
  verbs: [patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [list, watch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackends]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways/status, listenersets/status, httproutes/status, grpcroutes/status, tlsroutes/status, tcproutes/status, udproutes/status, backendtlspolicies/status]
  verbs: [patch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackends/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps] # certificate authorities, by name
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{ include "fairlead.rules.services" . }}
{{- end -}}

{{/* Services lead to backends, and tell the addresses of Fairlead and of Gateways. Those of Gateways it makes: see serviceguard.yaml, too. */}}
{{- define "fairlead.rules.services" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [{{ if include "fairlead.provisions" . }}get, list, watch, create, patch, delete{{ else }}list, watch{{ end }}]
{{- end -}}

{{/* Certificates, and whatever else a Secret may hold: RBAC does not know types. */}}
{{- define "fairlead.rules.secrets" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [{{ if include "fairlead.orders" . }}get, list, watch, create, update{{ else }}get, list, watch{{ end }}]
{{- end -}}

{{/* Whether certificates are ordered, which takes writing the Secrets that they go to; RBAC cannot say which those are. */}}
{{- define "fairlead.orders" -}}
{{- if dig "acme" "issuers" list .Values.config }}true{{ end -}}
{{- end -}}

{{/* What is in no namespace. */}}
{{- define "fairlead.rules.cluster" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- if include "fairlead.publishesNodes" . }}
- apiGroups: [""]
  resources: [nodes] # their addresses
  verbs: [list, watch]
{{- end }}
- apiGroups: [networking.k8s.io]
  resources: [ingressclasses]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status]
  verbs: [patch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions] # which version of the Gateway API they are from
  resourceNames:
    {{- range list "gatewayclasses" "gateways" "listenersets" "httproutes" "grpcroutes" "tlsroutes" "tcproutes" "udproutes" "backendtlspolicies" "referencegrants" }}
    - {{ . }}.gateway.networking.k8s.io
    {{- end }}
    - xbackends.gateway.networking.x-k8s.io
    - xbackendtrafficpolicies.gateway.networking.x-k8s.io
  verbs: [get]
{{- end -}}

{{/* What it needs in its own namespace beyond what it may do in those that it serves; nothing, perhaps. */}}
{{- define "fairlead.rules.own" -}}
{{- if include "fairlead.orders" . }}
- apiGroups: [coordination.k8s.io]
  resources: [leases] # leadership, and the locks under which certificates are ordered
  verbs: [get, create, update, delete]
- apiGroups: [""]
  resources: [secrets] # accounts at certificate authorities, and their challenges
  verbs: [get, list, watch, create, update, delete]
{{- else if .Values.leaderElection }}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}
{{- if and .Values.watchNamespaces (not (has .Release.Namespace .Values.watchNamespaces)) }}
{{ include "fairlead.rules.services" . }}
{{- if include "fairlead.publishesNodes" . }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices] # which nodes Fairlead's pods are on
  verbs: [list, watch]
{{- end }}
{{- end }}
{{- end -}}

{{/* A binding to Fairlead's account. Takes a list: the root, Role or ClusterRole, the role's name, and the namespace of the binding or "". */}}
{{- define "fairlead.binding" -}}
{{- $root := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ index . 1 }}Binding
metadata:
  name: {{ index . 2 }}
  {{- with index . 3 }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "fairlead.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 1 }}
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ include "fairlead.serviceAccountName" $root }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}

{{/* What cleaning up needs in the namespaces that were served. */}}
{{- define "fairlead.cleanup.rules" -}}
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes, tlsroutes, tcproutes, udproutes, backendtlspolicies]
  verbs: [get, list]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes/status, grpcroutes/status, tlsroutes/status, tcproutes/status, udproutes/status, backendtlspolicies/status]
  verbs: [patch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackendtrafficpolicies]
  verbs: [get, list]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackendtrafficpolicies/status]
  verbs: [patch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackends]
  verbs: [get, list]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xbackends/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, delete]
{{- end -}}

{{/* Labels and annotations of a hook after the end of a release; takes a list: the root and the weight. */}}
{{- define "fairlead.cleanup.meta" -}}
labels:
  {{- include "fairlead.labels" (index . 0) | nindent 2 }}
annotations:
  helm.sh/hook: post-delete
  helm.sh/hook-weight: {{ index . 1 | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* As fairlead.binding, with the account as the last of the list. */}}
{{- define "fairlead.cleanup.binding" -}}
{{- $root := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ index . 1 }}Binding
metadata:
  name: {{ index . 2 }}
  {{- with index . 3 }}
  namespace: {{ . }}
  {{- end }}
  {{- include "fairlead.cleanup.meta" (list $root "-1") | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 1 }}
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 4 }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}
