package manifest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/object"
)

// folderOf makes a file system of paths and texts.
func folderOf(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o600}
	}
	return fsys
}

// loadText loads a folder with the one file a.yaml.
func loadText(text string) (*object.Snapshot, []Issue) {
	return Load(folderOf(map[string]string{"a.yaml": text}), Options{})
}

// texts are the issues as lines; those that are fatal begin with "!".
func texts(issues []Issue) []string {
	var out []string
	for _, i := range issues {
		mark := ""
		if i.Fatal {
			mark = "!"
		}
		out = append(out, mark+i.String())
	}
	return out
}

// declared are the objects that a file or flag declares, with their origins.
func declared(s *object.Snapshot) []string {
	var out []string
	for _, ref := range slices.SortedFunc(maps.Keys(s.Origins), object.Ref.Compare) {
		out = append(out, ref.String()+" "+s.Origins[ref])
	}
	return out
}

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {k: " + value + "}\n"
}

func service(name string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {ports: [{port: 80}]}\n"
}

func TestLoadFindsDocuments(t *testing.T) {
	json := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "%s"}, "data": {"k": "\ud83d\ude00 \/"}}`
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"an empty folder", nil, nil},
		{"a document", map[string]string{"a.yaml": configMap("x", "v")}, []string{"ConfigMap default/x a.yaml:1"}},
		{
			"all extensions, in subfolders, and nothing else",
			map[string]string{
				"a.yaml": configMap("a", "v"), "b.yml": configMap("b", "v"), "c.json": fmt.Sprintf(json, "c"), "s/t/d.YAML": configMap("d", "v"),
				"readme.md": "# x", "x.yaml~": "broken: [", "#x.yaml#": "broken: [", ".x.yaml": "broken: [", ".git/x.yaml": "broken: [", "x.yaml.swp": "broken: [",
				"4913": "",
			},
			[]string{"ConfigMap default/a a.yaml:1", "ConfigMap default/b b.yml:1", "ConfigMap default/c c.json:1", "ConfigMap default/d s/t/d.YAML:1"},
		},
		{
			"several documents, comments and empty ones among them",
			map[string]string{"a.yaml": "# top\n\n---\n# nothing\n---\n---\n" + configMap("x", "v") + "---\n\n# second\n" + configMap("xx", "v") + "...\n--- # third\n" + configMap("z", "v") + "---\n"},
			[]string{"ConfigMap default/x a.yaml:7", "ConfigMap default/xx a.yaml:14", "ConfigMap default/z a.yaml:20"},
		},
		{
			"a document after an end marker",
			map[string]string{"a.yaml": configMap("x", "v") + "...\n" + configMap("xx", "v")},
			[]string{"ConfigMap default/x a.yaml:1", "ConfigMap default/xx a.yaml:6"},
		},
		{
			"content on the marker's line",
			map[string]string{"a.yaml": "--- {apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\n--- !!map\n" + configMap("xx", "v")},
			[]string{"ConfigMap default/x a.yaml:1", "ConfigMap default/xx a.yaml:2"},
		},
		{
			"a directive",
			map[string]string{"a.yaml": "%YAML 1.2\n---\n" + configMap("x", "v")},
			[]string{"ConfigMap default/x a.yaml:3"},
		},
		{
			"three dashes inside a text are no marker unless they begin the line",
			map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  k: |\n    ---\n    v\n  l: ---x\n---\n" + configMap("xx", "v")},
			[]string{"ConfigMap default/x a.yaml:1", "ConfigMap default/xx a.yaml:10"},
		},
		{
			"Windows line ends and a byte order mark",
			map[string]string{"a.yaml": "\ufeff" + strings.ReplaceAll(configMap("x", "v")+"---\n"+configMap("xx", "v"), "\n", "\r\n")},
			[]string{"ConfigMap default/x a.yaml:1", "ConfigMap default/xx a.yaml:6"},
		},
		{
			"lone carriage returns",
			map[string]string{"a.yaml": strings.ReplaceAll(configMap("x", "v")+"---\n"+configMap("xx", "v"), "\n", "\r")},
			[]string{"ConfigMap default/x a.yaml:1", "ConfigMap default/xx a.yaml:6"},
		},
		{
			"several values in a JSON file",
			map[string]string{"a.json": fmt.Sprintf(json, "x") + "\n\n" + fmt.Sprintf(json, "xx") + fmt.Sprintf(json, "z") + "\n"},
			[]string{"ConfigMap default/x a.json:1", "ConfigMap default/xx a.json:3", "ConfigMap default/z a.json:3"},
		},
		{
			"JSON in a YAML file",
			map[string]string{"a.yaml": "\n" + fmt.Sprintf(json, "x")},
			[]string{"ConfigMap default/x a.yaml:2"},
		},
		{
			"a flow mapping that is not JSON",
			map[string]string{"a.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\n---\n" + configMap("xx", "v")},
			[]string{"ConfigMap default/x a.yaml:1", "ConfigMap default/xx a.yaml:3"},
		},
		{
			"lists, typed lists and lists in lists",
			map[string]string{
				"a.yaml": "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n# one\n- apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    name: x\n- apiVersion: v1\n" +
					"  kind: List\n  items:\n  - {apiVersion: v1, kind: ConfigMap, metadata: {name: xx}}\n",
				"b.yaml": "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: z}\n- metadata: {name: zz}\nother: [\n  1]\n",
				"c.yaml": "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c1}},\n  {apiVersion: v1, kind: ConfigMap, metadata: {name: c2}}]\n",
				"d.yaml": "apiVersion: v1\nkind: List\nitems:\n-\n  apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: d1}\n\n\n-\n  {apiVersion: v1, kind: ConfigMap, metadata: {name: d2}}\n",
				"e.json": "{\"apiVersion\": \"v1\", \"kind\": \"List\",\n\"items\": [\n" + fmt.Sprintf(json, "e1") + ",\n\n" + fmt.Sprintf(json, "e2") + "]}",
				"f.yaml": "apiVersion: v1\nkind: List\nitems: []\n",
			},
			[]string{
				"ConfigMap default/c1 c.yaml:3", "ConfigMap default/c2 c.yaml:4", "ConfigMap default/d1 d.yaml:4", "ConfigMap default/d2 d.yaml:10",
				"ConfigMap default/e1 e.json:3", "ConfigMap default/e2 e.json:5",
				"ConfigMap default/x a.yaml:6", "ConfigMap default/xx a.yaml:13", "ConfigMap default/z b.yaml:4", "ConfigMap default/zz b.yaml:5",
			},
		},
		{
			"anchors, aliases and merged keys, where the mapping's own key wins",
			map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: &n x\n  labels: &l\n    app: *n\n    tier: web\n  annotations:\n    tier: db\n    <<: *l\n"},
			[]string{"ConfigMap default/x a.yaml:1"},
		},
		{
			"kinds that are of no use here",
			map[string]string{
				"a.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {anything: [1]}\n---\napiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: ServiceAccount\n" +
					"---\napiVersion: networking.istio.io/v1\nkind: Gateway\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n" +
					"---\napiVersion: traefik.io/v1alpha1\nkind: IPAllowList\nspec: {}\n---\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n---\napiVersion: v1\nkind: PodList\nitems: [{metadata: {name: x}}]\n",
			},
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, issues := Load(folderOf(tt.files), Options{})
			if diff := cmp.Diff(tt.want, declared(snap)); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if len(issues) > 0 {
				t.Errorf("issues: %q", texts(issues))
			}
		})
	}
}

func TestLoadReportsIssues(t *testing.T) {
	head := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n"
	ingress := "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: x\n  namespace: shop\nspec:\n"
	for _, tt := range []struct {
		name string
		in   string
		want []string
	}{
		// What cannot be parsed. Each is the second document, so that the lines are the file's and not the document's.
		{"flow list not closed", head + "data: [1\nmore: 2\n", []string{`!a.yaml:11: ConfigMap default/x: not valid YAML: did not find expected ',' or ']'`}},
		{"flow mapping not closed", head + "data: {a: b\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: did not find expected ',' or '}'`}},
		{"quote not closed", head + "data: {a: \"b\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: found unexpected end of stream`}},
		{"wrong indentation", head + "data:\n  a: b\n c: d\n", []string{`!a.yaml:12: ConfigMap default/x: not valid YAML: did not find expected key`}},
		{"key without colon", head + "data:\n  a: b\n  c\n", []string{`!a.yaml:12: ConfigMap default/x: not valid YAML: could not find expected ':'`}},
		{"mapping in a value", head + "data: a: b\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: mapping values are not allowed in this context`}},
		{"item in a mapping", head + "data:\n  a: b\n  - c\n", []string{`!a.yaml:12: ConfigMap default/x: not valid YAML: did not find expected key`}},
		{"a tab", head + "data:\n\ta: b\n", []string{`!a.yaml:11: ConfigMap default/x: not valid YAML: line is indented with a tab; YAML is indented with spaces`}},
		{"a tab after spaces", head + "data:\n  \ta: b\n", []string{`!a.yaml:11: ConfigMap default/x: not valid YAML: line is indented with a tab; YAML is indented with spaces`}},
		{"unknown anchor", head + "data: *nothing\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: unknown anchor 'nothing' referenced`}},
		{"anchor inside itself", head + "data: &a [*a]\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: anchor 'a' value contains itself`}},
		{"reserved character", head + "data: {k: @v}\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: found character that cannot start any token`}},
		{"control character", head + "data: {k: \x01}\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: control characters are not allowed`}},
		{"not UTF-8", head + "data: {k: \xff}\n", []string{`!a.yaml:10: ConfigMap default/x: not valid YAML: invalid leading UTF-8 octet`}},
		{"a template", head + "data:\n  k: {{ .Values.k }}\n", []string{`!a.yaml:11: ConfigMap default/x: not valid YAML: a mapping cannot be a key; this looks like a template: render it first`}},
		{"a tag that does not fit", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: !!int secret}\n", []string{`!a.yaml:6: Secret default/s: not valid YAML: a value does not fit its tag`}},
		{"a key written twice", head + "data:\n  a: b\n  c: d\n  a: e\n", []string{`!a.yaml:13: ConfigMap default/x: key "a" is written twice in one mapping`}},
		{"a key written twice in two ways", head + "data:\n  1: a\n  \"1\": b\n", []string{`!a.yaml:12: ConfigMap default/x: key "1" is written twice in one mapping`}},
		{"two keys written twice", head + "  name: xx\ndata: {a: b, a: e}\n", []string{
			`!a.yaml:10: ConfigMap default/x: key "name" is written twice in one mapping`, `!a.yaml:11: ConfigMap default/x: key "a" is written twice in one mapping`,
		}},
		{"too deep", head + "data: " + strings.Repeat("[", 101) + strings.Repeat("]", 101) + "\n", []string{`!a.yaml:6: ConfigMap default/x: mappings and lists are nested deeper than 100`}},

		// What is no Kubernetes object.
		{"a text", "hello\n", []string{`!a.yaml:6: want a Kubernetes object, found a text`}},
		{"a list", "- 1\n", []string{`!a.yaml:6: want a Kubernetes object, found a list`}},
		{"no apiVersion", "kind: ConfigMap\nmetadata: {name: x}\n", []string{`!a.yaml:6: ConfigMap default/x: not a Kubernetes object: apiVersion is missing or not a text`}},
		{"no kind", "# values\napiVersion: v1\nmetadata: {name: x}\n", []string{`!a.yaml:7: not a Kubernetes object: kind is missing or not a text`}},
		{"a list with a broken item", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: x}\n- 1\n", []string{`!a.yaml:12: want a Kubernetes object, found a number`}},

		// Kinds and versions.
		{"an old version", "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: x}\n", []string{`!a.yaml:6: Ingress default/x: Ingress is read from apiVersion networking.k8s.io/v1, not networking.k8s.io/v1beta1`}},
		{"a version before that", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: x}\n", []string{`!a.yaml:6: Ingress default/x: Ingress is read from apiVersion networking.k8s.io/v1, not extensions/v1beta1`}},
		{"an alpha version", "kind: HTTPRoute\napiVersion: gateway.networking.k8s.io/v1alpha2\nmetadata: {name: x}\n", []string{`!a.yaml:7: HTTPRoute default/x: HTTPRoute is read from apiVersion gateway.networking.k8s.io/v1, not gateway.networking.k8s.io/v1alpha2`}},
		{"a misspelt group", "apiVersion: networking.k8.io/v1\nkind: Ingress\nmetadata: {name: x}\n", []string{`!a.yaml:6: Ingress default/x: Ingress is read from apiVersion networking.k8s.io/v1, not networking.k8.io/v1`}},
		{"no group", "apiVersion: v1\nkind: Gateway\nmetadata: {name: x}\n", []string{`!a.yaml:6: Gateway default/x: Gateway is read from apiVersion gateway.networking.k8s.io/v1, not v1`}},
		{"a misspelt kind", "apiVersion: networking.k8s.io/v1\nkind: Ingres\nmetadata: {name: x}\n", []string{`!a.yaml:6: Ingres x: unknown kind Ingres in apiVersion networking.k8s.io/v1; did you mean Ingress?`}},
		{"a kind in the wrong case", "apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\nmetadata: {name: x}\n", []string{`!a.yaml:6: HttpRoute x: unknown kind HttpRoute in apiVersion gateway.networking.k8s.io/v1; did you mean HTTPRoute?`}},
		{"a kind that does not exist", "apiVersion: v1\nkind: Conf\n", []string{`!a.yaml:6: unknown kind Conf in apiVersion v1`}},
		{"a list without items", "apiVersion: v1\nkind: List\nitems:\n", []string{`!a.yaml:6: items: want a list, found nothing`}},
		{"Endpoints", "apiVersion: v1\nkind: Endpoints\nmetadata: {name: x}\n", []string{`a.yaml:7: Endpoints x: Endpoints is not served: write an EndpointSlice`}},

		// Fields.
		{"an unknown field", ingress + "  ruls: []\n", []string{`a.yaml:12: Ingress shop/x: spec.ruls: unknown field is ignored; did you mean rules?`}},
		{"an unknown field in another case", ingress + "  tls:\n  - hosts: [a]\n    secretname: b\n", []string{`a.yaml:14: Ingress shop/x: spec.tls[0].secretname: unknown field is ignored; did you mean secretName?`}},
		{"two letters exchanged", ingress + "  rules:\n  - host: a\n    http:\n      pahts: []\n", []string{`a.yaml:15: Ingress shop/x: spec.rules[0].http.pahts: unknown field is ignored; did you mean paths?`}},
		{"an unknown field like no other", ingress + "  rules: [{frobnicate: 1}]\n", []string{`a.yaml:12: Ingress shop/x: spec.rules[0].frobnicate: unknown field is ignored`}},
		{"a text for a number", ingress + "  defaultBackend:\n    service:\n      name: a\n      port: {number: http}\n", []string{`!a.yaml:15: Ingress shop/x: spec.defaultBackend.service.port.number: want a whole number, found the text "http"`}},
		{"a number for a text", head + "  labels:\n    a.b/c: 1\ndata:\n  \"d e\": yes\n", []string{
			`!a.yaml:11: ConfigMap default/x: metadata.labels["a.b/c"]: want a text, found the number 1: put it in quotes`,
			`!a.yaml:13: ConfigMap default/x: data["d e"]: want a text, found true: put it in quotes (YAML takes y, yes, on, n, no and off for true and false)`,
		}},
		{"a number out of range", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports:\n  - port: 99999999999\n  - port: 1.5\n  - port: 18446744073709551615\n", []string{
			`!a.yaml:11: Service default/x: spec.ports[0].port: want a number from -2147483648 to 2147483647, found the number 99999999999`,
			`!a.yaml:12: Service default/x: spec.ports[1].port: want a whole number, found the number 1.5`,
			`!a.yaml:13: Service default/x: spec.ports[2].port: want a number from -2147483648 to 2147483647, found the number 18446744073709551615`,
		}},
		{"a mapping for a list", ingress + "  rules:\n    host: a\n", []string{`!a.yaml:12: Ingress shop/x: spec.rules: want a list, found a mapping`}},
		{"a list for a mapping", ingress + "- rules\n", []string{`!a.yaml:11: Ingress shop/x: spec: want a mapping, found a list`}},
		{"a text for true", head + "immutable: maybe\n", []string{`!a.yaml:10: ConfigMap default/x: immutable: want true or false, found the text "maybe"`}},
		{"a target port", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports:\n  - port: 80\n    targetPort: true\n", []string{`!a.yaml:12: Service default/x: spec.ports[0].targetPort: want a number or a name, found true`}},
		{"a time", head + "  creationTimestamp: yesterday\n", []string{`!a.yaml:10: ConfigMap default/x: metadata.creationTimestamp: want a time such as 2026-01-31T12:00:00Z, found the text "yesterday"`}},
		{"a secret that is not base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata:\n  password: hunter2!\n", []string{`!a.yaml:10: Secret default/x: data.password: want base64 text: illegal base64 data at input byte 7; plain text belongs in stringData`}},
		{"a secret that is not repeated", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData:\n  pin: 1234\n", []string{`!a.yaml:10: Secret default/x: stringData.pin: want a text, found a number: put it in quotes`}},

		{"a number for a mapping", head + "data: 5\n", []string{`!a.yaml:10: ConfigMap default/x: data: want a mapping, found the number 5`}},
		{"a number for base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: 1}\n", []string{`!a.yaml:9: Secret default/x: data.a: want base64 text, found a number`}},
		{"a negative number", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec:\n  rules:\n  - filters:\n    - type: ExternalAuth\n      externalAuth: {forwardBody: {maxSize: -1}}\n", []string{`!a.yaml:13: HTTPRoute default/x: spec.rules[0].filters[0].externalAuth.forwardBody.maxSize: want a number from 0 to 65535, found the number -1`}},
		{"nothing as a key", head + "data: {~: x}\n", []string{`!a.yaml:6: ConfigMap default/x: nothing is not possible as a key`}},
		{"lists in lists in lists", strings.Repeat("apiVersion: v1\nkind: List\nitems:\n- ", 1) + strings.Repeat("{apiVersion: v1, kind: List, items: [", 5) + strings.Repeat("]}", 5) + "\n", []string{`!a.yaml:9: lists are nested deeper than 4`}},

		// Names.
		{"no name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", []string{`!a.yaml:8: metadata.name: is missing`}},
		{"no metadata", "apiVersion: v1\nkind: ConfigMap\n", []string{`!a.yaml:6: metadata.name: is missing`}},
		{"a name to be made up", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: x-\n", []string{`!a.yaml:9: metadata.generateName: only an API server generates names; write metadata.name`}},
		{"a bad name", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: Shop_Web\n", []string{`!a.yaml:9: ConfigMap default/Shop_Web: metadata.name: "Shop_Web" is not a name; want lower-case letters, digits, '-' and '.', with a letter or digit at both ends`}},
		{"a bad namespace", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: a.b\n", []string{`!a.yaml:10: ConfigMap a.b/x: metadata.namespace: "a.b" is not a name; want lower-case letters, digits and '-', with a letter or digit at both ends`}},
		{"a long name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + strings.Repeat("a", 254) + "}\n", []string{`!a.yaml:8: ConfigMap default/` + strings.Repeat("a", 254) + `: metadata.name: name of 254 bytes is too long; the limit is 253`}},

		// Kinds with needs of their own.
		{"a slice without a type", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: x\n  labels: {kubernetes.io/service-name: a}\n", []string{`!a.yaml:6: EndpointSlice default/x: addressType: is missing; want IPv4, IPv6 or FQDN`}},
		{"a slice without a Service", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: x\naddressType: IPv4\n", []string{`a.yaml:6: EndpointSlice default/x: label kubernetes.io/service-name is missing: the slice belongs to no Service and is not used`}},
		{"a duplicate", configMap("first", "v") + "---\n" + configMap("x", "v"), []string{`!a.yaml:6: ConfigMap default/first: already declared at a.yaml:1; this one is not used`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, issues := loadText(configMap("first", "kept") + "---\n" + tt.in + "---\n" + configMap("last", "kept"))
			if diff := cmp.Diff(tt.want, texts(issues)); diff != "" {
				t.Errorf("issues (-want +got):\n%s", diff)
			}
			for _, name := range []string{"first", "last"} {
				if c := snap.ConfigMaps[object.Key{Namespace: "default", Name: name}]; c == nil || c.Data["k"] != "kept" {
					t.Errorf("ConfigMap %s = %v; want it untouched by the document between", name, c)
				}
			}
		})
	}
}

func TestLoadReportsJSONIssues(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"cut off", "{\n\"apiVersion\": \"v1\",\n\"kind\":", `!a.json:3: not valid JSON: text ends too early`},
		{"a comma too many", "{\n\"apiVersion\": \"v1\",\n}", `!a.json:3: not valid JSON: invalid character '}' looking for beginning of object key string`},
		{"YAML", "apiVersion: v1\n", `!a.json:1: not valid JSON: invalid character 'a' looking for beginning of value`},
		{"a key written twice", "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\"metadata\": {\"name\": \"x\",\n\"name\": \"y\"}}", `!a.json:3: key "name" is written twice in one mapping`},
		{"an unknown field", "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\"metadata\": {\"name\": \"x\"},\n\n\"dta\": {}}", `a.json:4: ConfigMap default/x: dta: unknown field is ignored; did you mean data?`},
		{"a number for a text", "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\"metadata\": {\"name\": \"x\"},\n\"data\": {\n\"k\": 1e2}}", `!a.json:4: ConfigMap default/x: data.k: want a text, found the number 100: put it in quotes`},
		{"too deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), `!a.json:1: mappings and lists are nested deeper than 100`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, issues := Load(folderOf(map[string]string{"a.json": tt.in, "b.json": `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"good"}}`}), Options{})
			if diff := cmp.Diff([]string{tt.want}, texts(issues)); diff != "" {
				t.Errorf("issues (-want +got):\n%s", diff)
			}
			if snap.ConfigMaps[object.Key{Namespace: "default", Name: "good"}] == nil {
				t.Error("the good document is missing")
			}
		})
	}
}

func TestLoadReportsFiles(t *testing.T) {
	big := "# " + strings.Repeat("x", maxFileBytes)
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"too large", map[string]string{"big.yaml": big}, []string{"!big.yaml: file is too large: at most 16777216 bytes are read of one file and 268435456 of a folder"}},
		{"UTF-16", map[string]string{"a.yaml": "\xff\xfea\x00"}, []string{"!a.yaml:1: file is written in UTF-16; save it as UTF-8"}},
		{
			"too many values",
			map[string]string{"a.yaml": "a: [" + strings.Repeat("a,", maxValues) + "]\n", "b.json": "[" + strings.Repeat("1,", maxValues) + "1]"},
			[]string{"!a.yaml:1: document holds about 1000003 values; the limit is 1000000", "!b.json:1: document holds about 1000002 values; the limit is 1000000"},
		},
		{
			"duplicates in two files, and the one in the file that comes first stays",
			map[string]string{"b.yaml": "\n" + configMap("x", "second"), "a/a.yaml": "\n\n" + configMap("x", "first"), "c.yaml": configMap("x", "third")},
			[]string{
				"!b.yaml:2: ConfigMap default/x: already declared at a/a.yaml:3; this one is not used",
				"!c.yaml:1: ConfigMap default/x: already declared at a/a.yaml:3; this one is not used",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.files["good.yaml"] = configMap("good", "v")
			snap, issues := Load(folderOf(tt.files), Options{})
			if diff := cmp.Diff(tt.want, texts(issues)); diff != "" {
				t.Errorf("issues (-want +got):\n%s", diff)
			}
			if snap.ConfigMaps[object.Key{Namespace: "default", Name: "good"}] == nil {
				t.Error("the good file is missing")
			}
			if x := snap.ConfigMaps[object.Key{Namespace: "default", Name: "x"}]; x != nil && x.Data["k"] != "first" {
				t.Errorf("ConfigMap x = %v; want the first", x.Data)
			}
		})
	}
}

// Keys are texts, whatever YAML takes them for, as they are for kubectl.
func TestLoadMakesTextsOfKeys(t *testing.T) {
	for _, tt := range []struct{ name, in string }{
		{"parsed", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {1: a, true: b, 1.5: c, 2026-01-31: d}\n"},
		{"parsed a second time", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  labels: &l {a: b}\n  annotations: {<<: *l, a: c}\ndata: {1: a, true: b, 1.5: c, 2026-01-31: d}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, issues := loadText(tt.in)
			if len(issues) > 0 {
				t.Fatalf("issues: %q", texts(issues))
			}
			want := map[string]string{"1": "a", "true": "b", "1.5": "c", "2026-01-31": "d"}
			if diff := cmp.Diff(want, snap.ConfigMaps[object.Key{Namespace: "default", Name: "x"}].Data); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadStopsAtTheLimitOfDocuments(t *testing.T) {
	var items strings.Builder
	for i := range maxDocuments {
		fmt.Fprintf(&items, "- {metadata: {name: c%d}}\n", i)
	}
	list := "apiVersion: v1\nkind: ConfigMapList\nitems:\n" + items.String()
	for _, tt := range []struct{ name, in, want string }{
		{"documents", strings.Repeat("--- {apiVersion: v1, kind: Pod}\n", maxDocuments), ""},
		{"documents too many", strings.Repeat("--- {apiVersion: v1, kind: Pod}\n", maxDocuments) + "---\n" + configMap("x", "v"), "!a.yaml:100001: folder holds more than 100000 documents; from here on they are not read"},
		{"items of a list", list, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, issues := Load(folderOf(map[string]string{"a.yaml": tt.in, "b.yaml": configMap("z", "v")}), Options{})
			want := []string{"!b.yaml:1: folder holds more than 100000 documents; from here on they are not read"}
			if tt.want != "" {
				want = append([]string{tt.want}, want...)
			}
			if diff := cmp.Diff(want, texts(issues)); diff != "" {
				t.Errorf("issues (-want +got):\n%s", diff)
			}
			if snap.ConfigMaps[object.Key{Namespace: "default", Name: "z"}] != nil {
				t.Error("what is over the limit was read")
			}
		})
	}
}

func TestLoadListsOnlyTheFirstProblems(t *testing.T) {
	in := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n"
	for i := range 500 {
		in += fmt.Sprintf("  k%d: 1\n", i)
	}
	_, issues := loadText(in)
	if len(issues) != maxIssues+1 || !strings.HasSuffix(issues[maxIssues].Message, "only the first 100 problems are listed") {
		t.Errorf("%d issues, the last %q", len(issues), issues[len(issues)-1].Message)
	}
}

func TestLoadDoesNotUnfoldBombs(t *testing.T) {
	// Each level repeats the one before nine times: 9^30 values if it were unfolded.
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	begun := time.Now()
	_, issues := loadText(bomb)
	want := []string{"!a.yaml:1: not valid YAML: document contains excessive aliasing"}
	if diff := cmp.Diff(want, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestLoadImpliesClassesAndNamespaces(t *testing.T) {
	route := "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n"
	for _, tt := range []struct {
		name, in   string
		class      string
		gateway    string // name and controller of the only GatewayClass
		ingress    string
		isDefault  bool
		namespaces []string
	}{
		{"nothing declared", route, "", "fairlead fairlead.io/gateway-controller", "fairlead fairlead.io/ingress-controller", true, []string{"shop"}},
		{"another name", route, "edge", "edge fairlead.io/gateway-controller", "edge fairlead.io/ingress-controller", true, []string{"shop"}},
		{
			"a GatewayClass declared", route + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: other}\nspec: {controllerName: example.com/c}\n", "",
			"other example.com/c", "fairlead fairlead.io/ingress-controller", true,
			[]string{"shop"},
		},
		{
			"an IngressClass declared", "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: other, namespace: dropped}\nspec: {controller: example.com/c}\n", "",
			"fairlead fairlead.io/gateway-controller", "other example.com/c", false, nil,
		},
		{
			"a Namespace declared", route + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a, kubernetes.io/metadata.name: liar}}\n", "",
			"fairlead fairlead.io/gateway-controller", "fairlead fairlead.io/ingress-controller", true,
			[]string{"shop"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, issues := Load(folderOf(map[string]string{"a.yaml": tt.in}), Options{Class: tt.class})
			if len(issues) > 0 {
				t.Fatalf("issues: %q", texts(issues))
			}
			var gateway, ingress []string
			for name, c := range snap.GatewayClasses {
				gateway = append(gateway, name+" "+string(c.Spec.ControllerName))
			}
			for name, c := range snap.IngressClasses {
				ingress = append(ingress, name+" "+c.Spec.Controller)
				if got := c.Annotations["ingressclass.kubernetes.io/is-default-class"] == "true"; got != tt.isDefault {
					t.Errorf("default class = %v, want %v", got, tt.isDefault)
				}
			}
			if diff := cmp.Diff([]string{tt.gateway}, gateway); diff != "" {
				t.Errorf("GatewayClasses (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{tt.ingress}, ingress); diff != "" {
				t.Errorf("IngressClasses (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.namespaces, slices.Sorted(maps.Keys(snap.Namespaces))); diff != "" {
				t.Errorf("Namespaces (-want +got):\n%s", diff)
			}
			for name, n := range snap.Namespaces {
				if n.Labels["kubernetes.io/metadata.name"] != name || n.Generation != 1 {
					t.Errorf("Namespace %s has labels %v and generation %d", name, n.Labels, n.Generation)
				}
			}
		})
	}
}

func TestLoadFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "..2026/a.yaml", configMap("a", "v"))
	write(t, dir, "..2026/sub/b.yaml", configMap("b", "v"))
	write(t, dir, "real/c.yaml", configMap("c", "v"))
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..2026", "..data")
	link("..data/a.yaml", "a.yaml")
	link("..data/sub", "sub")
	link("../real", "real/again")  // a ring
	link("real", "zz")             // the same folder under another name
	link("nowhere", "broken.yaml") // a link to nothing
	link("nowhere", ".#lock.yaml") // what editors leave
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	snap, issues := Load(os.DirFS(dir), Options{})
	if diff := cmp.Diff([]string{"ConfigMap default/a a.yaml:1", "ConfigMap default/b sub/b.yaml:1", "ConfigMap default/c real/c.yaml:1"}, declared(snap)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"!broken.yaml: cannot follow symbolic link: no such file or directory"}, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

// failingFS cannot open or list some of its paths.
type failingFS struct {
	fstest.MapFS
	fails map[string]bool
}

func (f failingFS) Open(name string) (fs.File, error) {
	if f.fails[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.MapFS.Open(name)
}

func (f failingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if f.fails[name] {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrPermission}
	}
	return f.MapFS.ReadDir(name)
}

// What cannot be read, be it a file or a folder, is as it was before.
func TestReaderKeepsWhatCannotBeRead(t *testing.T) {
	fsys := failingFS{folderOf(map[string]string{"a.yaml": configMap("a", "v"), "s/b.yaml": configMap("b", "v"), "s/t/c.yaml": configMap("c", "v")}), map[string]bool{}}
	r := newReader(Options{})
	for _, tt := range []struct {
		fails  []string
		want   []string
		issues []string
	}{
		{nil, []string{"a=v", "b=v", "c=v"}, nil},
		{[]string{"a.yaml"}, []string{"a=v", "b=v", "c=v"}, []string{"!a.yaml: cannot read file: permission denied; the last good version is still served"}},
		{[]string{"s"}, []string{"a=v", "b=v", "c=v"}, []string{"!s: cannot read folder: permission denied"}},
		{[]string{"s/t", "s/b.yaml"}, []string{"a=v", "b=v", "c=v"}, []string{
			"!s/b.yaml: cannot read file: permission denied; the last good version is still served", "!s/t: cannot read folder: permission denied",
		}},
		{nil, []string{"a=v", "b=v", "c=v"}, nil},
		{[]string{"."}, []string{"a=v", "b=v", "c=v"}, []string{"!.: cannot read folder: permission denied"}},
		{nil, []string{"a=v", "b=v", "c=v"}, nil},
	} {
		clear(fsys.fails)
		for _, name := range tt.fails {
			fsys.fails[name] = true
		}
		for range 2 {
			snap, issues := r.read(fsys)
			if diff := cmp.Diff(tt.want, values(snap)); diff != "" {
				t.Errorf("%v fail: ConfigMaps (-want +got):\n%s", tt.fails, diff)
			}
			if diff := cmp.Diff(tt.issues, texts(issues)); diff != "" {
				t.Errorf("%v fail: issues (-want +got):\n%s", tt.fails, diff)
			}
		}
	}
}

func TestLoadSkipsWhatIsNoFile(t *testing.T) {
	fsys := folderOf(map[string]string{"a.yaml": configMap("a", "v")})
	fsys["pipe.yaml"] = &fstest.MapFile{Mode: fs.ModeNamedPipe | 0o600}
	snap, issues := Load(fsys, Options{})
	if diff := cmp.Diff([]string{"a=v"}, values(snap)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"!pipe.yaml: not a regular file"}, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

func TestLoadStopsInDeepFolders(t *testing.T) {
	_, issues := Load(folderOf(map[string]string{strings.Repeat("d/", maxFolderDepth+1) + "a.yaml": configMap("a", "v")}), Options{})
	want := []string{"!" + strings.Repeat("d/", maxFolderDepth) + "d: folders are nested deeper than 64"}
	if diff := cmp.Diff(want, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

func TestLoadReportsAMissingFolder(t *testing.T) {
	snap, issues := Load(os.DirFS(filepath.Join(t.TempDir(), "none")), Options{})
	if snap == nil || len(snap.GatewayClasses) != 1 {
		t.Errorf("snapshot = %v, want one with the implied classes", snap)
	}
	if diff := cmp.Diff([]string{"!.: cannot read folder: no such file or directory"}, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

func TestLoadTakesTheTime(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	snap, _ := Load(fstest.MapFS{}, Options{Now: func() time.Time { return at }})
	if !snap.Taken.Equal(at) {
		t.Errorf("Taken = %v, want %v", snap.Taken, at)
	}
	if snap, _ := Load(fstest.MapFS{}, Options{}); time.Since(snap.Taken) > time.Minute {
		t.Errorf("Taken = %v, want now", snap.Taken)
	}
}

// write writes a file of a folder and makes what folders it needs.
func write(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
