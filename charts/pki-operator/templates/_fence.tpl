{{- /* Not empty if the fence is enabled. With --reuse-values, values of an older chart lack the switch. */}}
{{- define "pki-operator.fenced" -}}
{{- if dig "enabled" true (.Values.fence | default dict) }}true{{ end }}
{{- end }}

{{- /*
The head of a fence around one resource, with its binding: (list $ "secrets" "GROUP" "VERSION"). The first condition skips
requests of other users.
*/}}
{{- define "pki-operator.fence" -}}
{{- $resource := index . 1 }}
{{- $group := index . 2 }}
{{- $version := index . 3 }}
{{- with first . }}
{{- $name := printf "%s-fence-%s" (include "pki-operator.fullname" .) $resource -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "pki-operator.labels" . | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "pki-operator.labels" . | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    matchPolicy: Equivalent
    resourceRules:
      - apiGroups: [{{ $group | quote }}]
        apiVersions: [{{ $version | quote }}]
        resources: [{{ $resource }}]
        operations: [CREATE, UPDATE, DELETE]
  matchConditions:
    - name: is-the-operator
      expression: request.userInfo.username == "system:serviceaccount:{{ .Release.Namespace }}:{{ include "pki-operator.serviceAccountName" . }}"
{{- end }}
{{- end }}

{{- /* Start of every refusal, by which the operator recognizes its fence (src/controllers/pki/remedy.rs). */}}
{{- define "pki-operator.fenceSays" -}}
the fence permits the operator's account
{{- end }}

{{- /* CEL: the name of the Pki that owns a Secret, or "", the same as in src/k8s/secret.rs. */}}
{{- define "pki-operator.fenceOwner" -}}
[{{ . }}.metadata.?ownerReferences.orValue([]).filter(o, o.?controller.orValue(false))].map(c,
  c.size() == 0 ? {{ . }}.metadata.?annotations[?"box.com/adopt"].orValue("")
  : c[0].kind == "Pki" && c[0].apiVersion == "box.com/v1" ? c[0].name : "")[0]
{{- end }}

{{- /* The variables of a fence that compares objects field by field, including fields unknown to this chart. */}}
{{- define "pki-operator.fenceObjects" -}}
- name: before
  expression: dyn(oldObject)
- name: after
  expression: dyn(object)
{{- end }}

{{- /* The variables beforeNAME and afterNAME: a map of the object, empty where there is none: (list "NAME" "PATH"). */}}
{{- define "pki-operator.fenceMaps" -}}
- name: before{{ first . }}
  expression: "oldObject == null ? {} : oldObject.{{ last . }}.orValue({})"
- name: after{{ first . }}
  expression: "object == null ? {} : object.{{ last . }}.orValue({})"
{{- end }}

{{- /* CEL: two maps are equal except for some keys: (list "BEFORE" "AFTER" (list "KEY")). */}}
{{- define "pki-operator.fenceSameMaps" -}}
{{- $before := index . 0 }}
{{- $after := index . 1 }}
{{- $keys := index . 2 | toJson -}}
{{ $before }}.all(k, k in {{ $keys }} || {{ $before }}[?k] == {{ $after }}[?k])
&& {{ $after }}.all(k, k in {{ $keys }} || k in {{ $before }})
{{- end }}

{{- /* CEL: the object has not changed at this path, except for some keys there: (list "PATH" (list "KEY")). */}}
{{- define "pki-operator.fenceSame" -}}
{{- include "pki-operator.fenceSameMaps" (list (printf "variables.before.?%s.orValue({})" (first .)) (printf "variables.after.?%s.orValue({})" (first .)) (last .)) }}
{{- end }}

{{- /* CEL: the metadata has not changed, except for fields that Kubernetes writes and some keys: (list "KEY"). */}}
{{- define "pki-operator.fenceSameMetadata" -}}
{{- include "pki-operator.fenceSame" (list "metadata" (concat (list "generation" "managedFields" "resourceVersion") .)) }}
{{- end }}
