{{/* What runs in the cluster. */}}

{{- define "fairlead.podSpec" -}}
serviceAccountName: {{ include "fairlead.serviceAccountName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ include "fairlead.gracePeriod" . }}
{{- if .Values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "fairlead.podSecurityContext" . | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq .Values.kind "Deployment" }}
{{- if kindIs "invalid" .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "fairlead.spread" (list . "kubernetes.io/hostname") | nindent 2 }}
  {{- include "fairlead.spread" (list . "topology.kubernetes.io/zone") | nindent 2 }}
{{- else if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- end }}
{{- end }}
containers:
  - name: fairlead
    image: {{ include "fairlead.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      {{- include "fairlead.args" . | trim | nindent 6 }}
    env:
      {{- include "fairlead.env" . | nindent 6 }}
    {{- with .Values.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      {{- include "fairlead.port" (dict "name" "http" "number" (include "fairlead.httpPort" .) "port" .Values.ports.http) | nindent 6 }}
      {{- include "fairlead.port" (dict "name" "https" "number" (include "fairlead.httpsPort" .) "port" .Values.ports.https) | nindent 6 }}
      {{- include "fairlead.port" (dict "name" "admin" "number" (include "fairlead.adminPort" .) "port" dict) | nindent 6 }}
    startupProbe:
      {{- include "fairlead.probe" (list "/healthz" .Values.probes.startup) | nindent 6 }}
    readinessProbe:
      {{- include "fairlead.probe" (list "/readyz" .Values.probes.readiness) | nindent 6 }}
    livenessProbe:
      {{- include "fairlead.probe" (list "/healthz" .Values.probes.liveness) | nindent 6 }}
    {{- with .Values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "fairlead.securityContext" . | nindent 6 }}
    volumeMounts:
      - name: config
        mountPath: /etc/fairlead
        readOnly: true
volumes:
  - name: config
    configMap:
      name: {{ include "fairlead.fullname" . }}
{{- end -}}

{{- define "fairlead.args" -}}
- serve
{{- if .Values.hostNetwork }}
{{- /* Not on every address that the node may have. */}}
- --admin-address=[$(POD_IP)]:{{ include "fairlead.adminPort" . }}
{{- else }}
- --admin-address=:{{ include "fairlead.adminPort" . }}
{{- end }}
- --config=/etc/fairlead/config.yaml
- --log-level={{ .Values.logLevel }}
- --port-map={{ include "fairlead.portMap" . }}
- --pod-selector=app.kubernetes.io/name={{ include "fairlead.name" . }},app.kubernetes.io/instance={{ .Release.Name }}
{{- with include "fairlead.publishService" . }}
- --publish-service={{ . }}
{{- end }}
{{- if include "fairlead.publishesNodes" . }}
- --publish-nodes
{{- with include "fairlead.hostService" . }}
- --host-service={{ . }}
{{- end }}
{{- end }}
{{- with include "fairlead.hostPorts" . }}
- --host-ports={{ . }}
{{- end }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- with .Values.secretNamespaces }}
- --secret-namespaces={{ join "," . }}
{{- end }}
{{- if or .Values.ingressClass.exclusive (not .Values.rbac.clusterScope) }}
- --ingress-class={{ .Values.ingressClass.name }}
{{- end }}
{{- if or .Values.gatewayClass.exclusive (not .Values.rbac.clusterScope) }}
- --gateway-class={{ .Values.gatewayClass.name }}
{{- end }}
{{- if include "fairlead.provisions" . }}
- --gateway-service-type={{ include "fairlead.gatewayServiceType" . }}
{{- with .Values.gateway.externalTrafficPolicy | default .Values.service.externalTrafficPolicy }}
- --gateway-traffic-policy={{ . }}
{{- end }}
{{- else }}
- --gateway-addresses={{ .Values.gateway.addresses }}
{{- end }}
{{- if not .Values.leaderElection }}
- --leader-election=false
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fairlead.env" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- if .Values.hostNetwork }}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end }}
{{- $named := list }}
{{- range .Values.env }}
{{- $named = append $named .name }}
{{- end }}
{{- with include "fairlead.memoryLimit" . }}
{{- if not (has "GOMEMLIMIT" $named) }}
- name: GOMEMLIMIT
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A port of the container; takes name, number and port, which has what the values say of it. */}}
{{- define "fairlead.port" -}}
- name: {{ .name }}
  containerPort: {{ .number }}
  protocol: TCP
  {{- with .port.hostPort }}
  hostPort: {{ . | int }}
  {{- end }}
  {{- with .port.hostIP }}
  hostIP: {{ . | quote }}
  {{- end }}
{{- end -}}

{{/* Takes a list: the path and the timing. */}}
{{- define "fairlead.probe" -}}
httpGet:
  path: {{ index . 0 }}
  port: admin
{{- range $key, $value := index . 1 }}
{{ $key }}: {{ $value | int }}
{{- end }}
{{- end -}}

{{/* A wish to spread; takes a list: the root and the label of the nodes to spread over. */}}
{{- define "fairlead.spread" -}}
- topologyKey: {{ index . 1 }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "fairlead.selectorLabels" (index . 0) | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end -}}

{{- define "fairlead.podSecurityContext" -}}
{{- $context := deepCopy (.Values.podSecurityContext | default dict) -}}
{{- if and (include "fairlead.bindsPrivileged" .) (not .Values.hostNetwork) -}}
{{- $sysctl := dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0" -}}
{{- $context = set $context "sysctls" (append ($context.sysctls | default list) $sysctl) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{- define "fairlead.securityContext" -}}
{{- $context := deepCopy (.Values.securityContext | default dict) -}}
{{- if and .Values.hostNetwork (include "fairlead.bindsPrivileged" .) (eq .Values.hostPrivilegedPorts "Root") -}}
{{- $capabilities := mergeOverwrite (dict "drop" (list "ALL")) ($context.capabilities | default dict) (dict "add" (list "NET_BIND_SERVICE")) -}}
{{- $context = mergeOverwrite $context (dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 "capabilities" $capabilities) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}
