{{- define "pki-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Not empty if the operator writes Secrets. With --reuse-values, values of an older chart lack the value. */}}
{{- define "pki-operator.writesSecrets" -}}
{{- if dig "secrets" true (.Values | merge dict) }}true{{ end }}
{{- end }}

{{- define "pki-operator.fullname" -}}
{{- $name := include "pki-operator.name" . }}
{{- $fullname := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | replace "." "-" }}
{{- if not (regexMatch "^[a-z]" (.Values.fullnameOverride | default $fullname)) }}
{{- fail (printf "the name %s begins with a digit, so no Service can have it: set fullnameOverride to a name that begins with a letter" $fullname) }}
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
{{- /* The account "default" is no fallback: every pod of the namespace could then read Secrets. */}}
{{- required "serviceAccount.create=false needs serviceAccount.name: set it to the account that gets the operator's roles" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The subjects of all role bindings: the operator's service account. */}}
{{- define "pki-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "pki-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{- /* The namespaces for which the API server calls the webhook. It labels each namespace with its name. */}}
{{- define "pki-operator.namespaceSelector" -}}
{{- with .Values.namespaces }}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: {{ toJson . }}
{{- end }}
{{- end }}

{{- /* The DNS name by which the API server calls the Service. The serving certificate must have it. */}}
{{- define "pki-operator.serviceHost" -}}
{{ include "pki-operator.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- /*
The current path of the webhooks in the cluster, without the host. Empty before
the installation, and where Helm cannot look objects up.
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
{{- fail "deployment.enabled=false needs webhook.url: set it to the https:// address of the operator outside the cluster" }}
{{- end }}
{{- if $url }}
{{- if not (regexMatch "^https://[^/?#@\\s]+(/[^?#@\\s]*)?$" $url) }}
{{- fail (printf "webhook.url is %q: write https://HOST[:PORT][/PATH] without user, query or fragment" $url) }}
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

{{- /* Not empty if the API server itself enforces the rules that no PkiPolicy can change. */}}
{{- define "pki-operator.admissionPolicy" -}}
{{- $wanted := .Values.admissionPolicy.enabled | toString }}
{{- $isServed := and (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") (semverCompare ">=1.31.0-0" .Capabilities.KubeVersion.Version) }}
{{- if and (eq $wanted "true") (not $isServed) }}
{{- fail "admissionPolicy.enabled=true needs Kubernetes 1.31 with ValidatingAdmissionPolicy: write auto or false; for helm template, add --api-versions admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- end }}
{{- if and $isServed (or (eq $wanted "true") (and (eq $wanted "auto") (eq .Values.webhook.failurePolicy "Ignore"))) }}true{{ end }}
{{- end }}

{{- /* CEL: a value in quotation marks, as src/util/text.rs shows it. Messages of the API server cannot have line breaks. */}}
{{- define "pki-operator.shown" -}}
({{ . }}.matches(r"^[\pL\pN\pP\pS ]*$") ? "\"" + ({{ . }}.size() > 253 ? {{ . }}.substring(0, 253) + "…" : {{ . }}) + "\"" : "this value")
{{- end }}

{{- /* CEL: a name in lower case, without a trailing dot. */}}
{{- define "pki-operator.folded" -}}
({{ . }}.endsWith(".") ? {{ . }}.substring(0, {{ . }}.size() - 1) : {{ . }}).lowerAscii()
{{- end }}

{{- /* Not empty if upgrades update the CRDs. With --reuse-values, values of an older chart lack the switch. */}}
{{- define "pki-operator.upgradesCrds" -}}
{{- if and .Values.deployment.enabled (dig "upgrade" true (.Values.crds | default dict)) }}true{{ end }}
{{- end }}

{{- /* Address ranges that no policy can permit, the same as in src/policy/reserved.rs. */}}
{{- define "pki-operator.specialAddresses" -}}
["0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128", "169.254.0.0/16", "fe80::/10", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8"]
{{- end }}

{{- /*
CEL: a list of ranges, from a list of addresses and ranges. Each IPv4 range is followed by the IPv6 ranges that reach the
same hosts.
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

{{- /* The common part of all pod specs: replicas, hooks and tests. */}}
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

{{- /* Annotations of pods, if there are any: (list $ (dict ...)), where the dict has the pod's own. */}}
{{- define "pki-operator.podAnnotations" -}}
{{- with merge (dict) (last .) ((first .).Values.podAnnotations | default dict) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of pods: (list $ "LABELS"). The user's podLabels cannot replace those of the chart. */}}
{{- define "pki-operator.podLabels" -}}
{{- toYaml (merge (dict) (fromYaml (last .)) ((first .).Values.podLabels | default dict)) }}
{{- end }}

{{- /* The common part of all containers. */}}
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
Labels of hooks: (list $ "crds"). They differ from the selectorLabels, so that the Service, the PodDisruptionBudget and
the NetworkPolicy select only replicas.
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

{{- /* Not empty if the text is an IPv4 address: four numbers up to 255. */}}
{{- define "pki-operator.isIpv4" -}}
{{- if regexMatch "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])([.]|$)){4}$" . }}{{ if not (hasSuffix "." .) }}true{{ end }}{{ end }}
{{- end }}

{{- /*
Not empty if the text is an IPv6 address: eight groups of hexadecimal digits, or fewer around one "::". An IPv4 address may
stand for the last two groups.
*/}}
{{- define "pki-operator.isIpv6" -}}
{{- $embedded := regexFind ":[0-9.]+$" . | trimPrefix ":" }}
{{- $text := . }}
{{- if and (contains "." .) (include "pki-operator.isIpv4" $embedded) }}
{{- $text = printf "%s0:0" (trimSuffix $embedded .) }}
{{- end }}
{{- $count := regexFindAll "[0-9a-fA-F]+" $text -1 | len }}
{{- $group := "[0-9a-fA-F]{1,4}" }}
{{- $groups := printf "%s(:%s)*" $group $group }}
{{- if or (and (eq $count 8) (regexMatch (printf "^%s$" $groups) $text)) (and (lt $count 8) (regexMatch (printf "^(%s)?::(%s)?$" $groups $groups) $text)) }}true{{ end }}
{{- end }}

{{- /* Not empty if the text is an IP address, or a range in CIDR notation. */}}
{{- define "pki-operator.isAddressOrRange" -}}
{{- $parts := splitList "/" . }}
{{- $address := first $parts }}
{{- $length := "0" }}
{{- if gt (len $parts) 1 }}
{{- $length = rest $parts | join "/" }}
{{- end }}
{{- $isNumber := regexMatch "^[0-9]{1,3}$" $length }}
{{- if include "pki-operator.isIpv4" $address }}
{{- if and $isNumber (le (atoi $length) 32) }}true{{ end }}
{{- else if include "pki-operator.isIpv6" $address }}
{{- if and $isNumber (le (atoi $length) 128) }}true{{ end }}
{{- end }}
{{- end }}

{{- /* Fails for values whose refusal by the schema would not name a fix. */}}
{{- define "pki-operator.checkValues" -}}
{{- if and .Values.deployment.enabled (lt (int .Values.replicas) 1) }}
{{- fail (printf "replicas is %d, so nobody would answer admission or issue certificates: write 1 or more, or set deployment.enabled=false to run the operator outside the cluster" (int .Values.replicas)) }}
{{- end }}
{{- if or (regexMatch "[\\s@]|://" .Values.image.repository) (contains ":" (base .Values.image.repository)) }}
{{- fail (printf "image.repository is %q, which is no image repository: write REGISTRY/NAME without scheme, tag and digest, for example registry.example.com/pki-operator" .Values.image.repository) }}
{{- end }}
{{- with .Values.image.tag }}
{{- if not (regexMatch "^[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,127}(@sha256:[0-9a-f]{64})?$" .) }}
{{- fail (printf "image.tag is %q, which is no image tag: write at most 128 letters, digits, '-', '_' and '.', for example 0.2.0, or leave it empty for the chart's appVersion" .) }}
{{- end }}
{{- end }}
{{- range .Values.reservedAddresses }}
{{- if not (include "pki-operator.isAddressOrRange" .) }}
{{- fail (printf "reservedAddresses has %q, which is neither an IP address nor a range: write for example 10.96.0.1, 10.96.0.0/12 or fd00:10:96::/112; a prefix has at most 32 bits in IPv4 and 128 in IPv6" .) }}
{{- end }}
{{- end }}
{{- end }}
