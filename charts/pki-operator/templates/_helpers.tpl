{{- define "pki-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pki-operator.fullname" -}}
{{- $name := include "pki-operator.name" . }}
{{- $fullname := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | replace "." "-" }}
{{- if not (regexMatch "^[a-z]" (.Values.fullnameOverride | default $fullname)) }}
{{- fail (printf "a Service cannot be named %s, which begins with a digit: set fullnameOverride" $fullname) }}
{{- end }}
{{- .Values.fullnameOverride | default $fullname | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pki-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pki-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "pki-operator.labels" -}}
{{ include "pki-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: controller
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- define "pki-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "pki-operator.fullname" .) }}
{{- else }}
{{- /* Falling back to "default" would hand every pod of the namespace the right to read Secrets. */}}
{{- required "serviceAccount.create=false needs serviceAccount.name: the account to bind the operator's roles to" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* Whom the operator's roles are bound to. */}}
{{- define "pki-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "pki-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{- /* Which namespaces the API server asks about; it labels each with its name. */}}
{{- define "pki-operator.namespaceSelector" -}}
{{- with .Values.namespaces }}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: {{ toJson . }}
{{- end }}
{{- end }}

{{- /* The DNS name under which the API server calls the Service, and checks its certificate. */}}
{{- define "pki-operator.serviceHost" -}}
{{ include "pki-operator.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- /*
The path that the webhooks have in the cluster, without the host; empty before
the installation, and where nothing can be looked up.
*/}}
{{- define "pki-operator.currentPath" -}}
{{- $kind := "ValidatingWebhookConfiguration" }}
{{- $stored := lookup "admissionregistration.k8s.io/v1" $kind "" (include "pki-operator.fullname" .) }}
{{- $path := "" }}
{{- range dig "webhooks" list ($stored | default dict) }}
{{- $address := dig "url" (dig "service" "path" "" .clientConfig) .clientConfig }}
{{- $path = regexFind "(/[0-9a-f]{64})?/validate$" $address | default $path }}
{{- end }}
{{- $path }}
{{- end }}

{{- /* Asks the operator for the secret segment in the paths of the webhook configuration. */}}
{{- define "pki-operator.webhookAnnotations" -}}
{{- if dig "secretPath" true .Values.webhook }}
annotations:
  box.com/secret-path: "true"
{{- end }}
{{- end }}

{{- /*
Where the API server reaches the operator. The operator writes and owns the
caBundle and the path, so neither is rendered: Helm would conflict with it. Two
exceptions: a plain path that an earlier chart brought stays until the operator
takes it over, and a URL cannot lack its path, so it repeats the current one.
*/}}
{{- define "pki-operator.clientConfig" -}}
{{- $path := include "pki-operator.currentPath" . }}
{{- $url := .Values.webhook.url }}
{{- if not (or $url .Values.deployment.enabled) }}
{{- fail "deployment.enabled=false needs webhook.url: the https:// address of the operator outside the cluster" }}
{{- end }}
{{- if $url }}
{{- if not (regexMatch "^https://[^/?#@\\s]+(/[^?#@\\s]*)?$" $url) }}
{{- fail (printf "webhook.url must be https://HOST[:PORT][/PATH] without user, query or fragment; it is %q" $url) }}
{{- end }}
url: {{ printf "%s%s" (trimSuffix "/" $url) ($path | default "/validate") | quote }}
{{- else }}
service:
  name: {{ include "pki-operator.fullname" . }}
  namespace: {{ .Release.Namespace | quote }}
  {{- if eq $path "/validate" }}
  path: {{ $path }}
  {{- end }}
  port: 443
{{- end }}
{{- end }}

{{- /* Not empty if the rules that no PkiPolicy can change are given to the API server as well. */}}
{{- define "pki-operator.admissionPolicy" -}}
{{- $wanted := .Values.admissionPolicy.enabled | toString }}
{{- $isServed := and (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") (semverCompare ">=1.31.0-0" .Capabilities.KubeVersion.Version) }}
{{- if and (eq $wanted "true") (not $isServed) }}
{{- fail "admissionPolicy.enabled=true needs Kubernetes 1.31 with ValidatingAdmissionPolicy; for helm template, add --api-versions admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- end }}
{{- if and $isServed (or (eq $wanted "true") (and (eq $wanted "auto") (eq .Values.webhook.failurePolicy "Ignore"))) }}true{{ end }}
{{- end }}

{{- /* CEL: a value in quotation marks, as src/util/text.rs shows it. The API server takes no line breaks in messages. */}}
{{- define "pki-operator.shown" -}}
({{ . }}.matches(r"^[\pL\pN\pP\pS ]*$") ? "\"" + ({{ . }}.size() > 253 ? {{ . }}.substring(0, 253) + "…" : {{ . }}) + "\"" : "this value")
{{- end }}

{{- /* CEL: a name in lower case, without the dot of an absolute one. */}}
{{- define "pki-operator.folded" -}}
({{ . }}.endsWith(".") ? {{ . }}.substring(0, {{ . }}.size() - 1) : {{ . }}).lowerAscii()
{{- end }}

{{- /* Not empty if upgrades bring the CRDs along. With --reuse-values, values of an older chart lack the switch. */}}
{{- define "pki-operator.upgradesCrds" -}}
{{- if and .Values.deployment.enabled (dig "upgrade" true (.Values.crds | default dict)) }}true{{ end }}
{{- end }}

{{- /* Ranges of addresses that belong to nobody, as the operator has them (src/policy/reserved.rs). */}}
{{- define "pki-operator.specialAddresses" -}}
["0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128", "169.254.0.0/16", "fe80::/10", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8"]
{{- end }}

{{- /*
CEL: a list of ranges, from one of addresses and ranges. After each of IPv4 come those of the IPv6 addresses by which the
same hosts are reached.
*/}}
{{- define "pki-operator.ranges" -}}
{{- $ranges := list }}
{{- range . }}
{{- $range := contains "/" . | ternary . (printf "%s/%s" . (contains ":" . | ternary "128" "32")) }}
{{- $ranges = append $ranges $range }}
{{- if not (contains ":" $range) }}
{{- $address := splitList "/" $range | first }}
{{- $length := splitList "/" $range | last | int }}
{{- range $prefix := list "::" "::ffff:0:" "64:ff9b::" }}
{{- $ranges = append $ranges (printf "%s%s/%d" $prefix $address (add 96 $length)) }}
{{- end }}
{{- $hexadecimal := "" }}
{{- range $index, $octet := splitList "." $address }}
{{- $hexadecimal = printf "%s%s%02x" $hexadecimal (eq $index 2 | ternary ":" "") ($octet | int) }}
{{- end }}
{{- $ranges = append $ranges (printf "2002:%s::/%d" $hexadecimal (add 16 $length)) }}
{{- end }}
{{- end }}
{{- toJson $ranges }}.map(range, cidr(range))
{{- end }}

{{- /* What all pods of the chart have in common: the operator's, and those of hooks and tests. */}}
{{- define "pki-operator.podSpec" -}}
# A Service named pki-operator would set PKI_OPERATOR_* variables, which are the operator's flags.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name") }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Annotations of pods, if there are any: (list $ (dict ...)) with those that the pod has by itself. */}}
{{- define "pki-operator.podAnnotations" -}}
{{- with merge (dict) (last .) ((first .).Values.podAnnotations | default dict) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of pods: (list $ "LABELS"), those of the chart and the ones that the user adds, which cannot replace them. */}}
{{- define "pki-operator.podLabels" -}}
{{- toYaml (merge (dict) (fromYaml (last .)) ((first .).Values.podLabels | default dict)) }}
{{- end }}

{{- /* The same for their containers. */}}
{{- define "pki-operator.containerSpec" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /*
The labels of what runs as a hook: (list $ "crds"). They are not the selectorLabels, by which the Service, the
PodDisruptionBudget and the NetworkPolicy find the replicas.
*/}}
{{- define "pki-operator.hookLabels" -}}
{{- $component := last . }}
{{- with first . -}}
app.kubernetes.io/name: {{ include "pki-operator.name" . | trunc 58 }}-hook
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ $component }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}
{{- end }}
