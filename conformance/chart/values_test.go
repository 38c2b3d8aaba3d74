package chart_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template/parse"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// schema is what matters here of a JSON schema.
type schema struct {
	Ref         string             `json:"$ref"`
	Type        any                `json:"type"`
	Properties  map[string]*schema `json:"properties"`
	Additional  json.RawMessage    `json:"additionalProperties"`
	Definitions map[string]*schema `json:"definitions"`
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func (s *schema) closed() bool { return string(s.Additional) == "false" }

func (s *schema) child(root *schema, name string) (*schema, bool) {
	c, ok := s.Properties[name]
	if ok && c.Ref != "" {
		c, ok = root.Definitions[strings.TrimPrefix(c.Ref, "#/definitions/")]
	}
	return c, ok
}

// find follows a path as far as the schema says what there is.
func (s *schema) find(path []string) error {
	at := s
	for i, name := range path {
		next, ok := at.child(s, name)
		if !ok {
			if at.closed() {
				return fmt.Errorf("the schema has no %s", strings.Join(path[:i+1], "."))
			}
			return nil
		}
		at = next
	}
	return nil
}

// paths are the values that a template file uses, with the line of the first use.
func paths(t *testing.T, file string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tree := parse.New(file)
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(string(data), "", "", trees); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, tree := range trees {
		if tree.Root == nil {
			continue
		}
		walk(tree.Root, func(n parse.Node) {
			var ident []string
			switch n := n.(type) {
			case *parse.FieldNode:
				ident = n.Ident
			case *parse.VariableNode:
				ident = n.Ident[1:]
			}
			if len(ident) > 1 && ident[0] == "Values" {
				path := strings.Join(ident[1:], ".")
				if _, seen := out[path]; !seen {
					out[path] = 1 + strings.Count(string(data[:n.Position()]), "\n")
				}
			}
		})
	}
	return out
}

// walk visits the nodes of a template.
func walk(n parse.Node, visit func(parse.Node)) {
	visit(n)
	branch := func(b *parse.BranchNode) {
		walk(b.Pipe, visit)
		walk(b.List, visit)
		if b.ElseList != nil {
			walk(b.ElseList, visit)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, c := range n.Nodes {
			walk(c, visit)
		}
	case *parse.ActionNode:
		walk(n.Pipe, visit)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			walk(n.Pipe, visit)
		}
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			walk(c, visit)
		}
	case *parse.CommandNode:
		for _, a := range n.Args {
			walk(a, visit)
		}
	case *parse.ChainNode:
		walk(n.Node, visit)
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	}
}

func templates(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.yaml", "*.tpl", "*.txt", "tests/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(chartDir, "templates", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 15 {
		t.Fatalf("found only %d templates", len(files))
	}
	return files
}

// TestTemplatesUseTheSchema checks that every value that a template uses is one that the schema knows, and the other way round.
func TestTemplatesUseTheSchema(t *testing.T) {
	s := readSchema(t)
	used := map[string]bool{}
	for _, file := range templates(t) {
		found := paths(t, file)
		for path, line := range found {
			if err := s.find(strings.Split(path, ".")); err != nil {
				t.Errorf("%s:%d: .Values.%s: %v", file, line, path, err)
			}
			if filepath.Base(file) != "checks.yaml" { // looks, and renders nothing
				used[path] = true
			}
		}
	}
	var leaves func(at *schema, path []string)
	leaves = func(at *schema, path []string) {
		name := strings.Join(path, ".")
		if used[name] || name == "config" {
			return
		}
		if len(at.Properties) == 0 {
			t.Errorf("no template uses %s", name)
		}
		for _, child := range slices.Sorted(maps.Keys(at.Properties)) {
			next, _ := at.child(s, child)
			leaves(next, append(slices.Clone(path), child))
		}
	}
	leaves(s, nil)
}

// TestValuesShowTheSchema checks that values.yaml, which is the documentation, has every key of the blocks that are closed.
func TestValuesShowTheSchema(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		t.Fatal(err)
	}
	s := readSchema(t)
	var compare func(at *schema, values map[string]any, path string)
	compare = func(at *schema, values map[string]any, path string) {
		if path == ".config" || path == ".resources" || strings.HasPrefix(path, ".probes.") {
			return // documented elsewhere
		}
		for name := range at.Properties {
			value, ok := values[name]
			if !ok {
				t.Errorf("values.yaml does not have %s.%s", path, name)
			}
			next, _ := at.child(s, name)
			if inner, ok := value.(map[string]any); ok && next.closed() {
				compare(next, inner, path+"."+name)
			}
		}
	}
	compare(s, values, "")
}

// TestConfigSchema checks that the schema of config has exactly the fields that the program reads.
func TestConfigSchema(t *testing.T) {
	structs := map[string]*ast.StructType{}
	for _, name := range []string{"config.go", "acme.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), "../../cmd/fairlead/"+name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if x, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = x
				}
			}
			return true
		})
	}
	config := structs["config"]
	if config == nil {
		t.Fatal("config.go has no struct config")
	}
	s := readSchema(t)
	want := map[string]string{}
	fields(t, config, structs, "", want)
	got := map[string]string{}
	var collect func(at *schema, path string)
	collect = func(at *schema, path string) {
		for name, child := range at.Properties {
			if child.Ref == "#/definitions/duration" {
				got[path+name] = "duration"
			} else if string(child.Additional) == `{"type": "string"}` {
				got[path+name] = "map"
			} else if got[path+name] = fmt.Sprint(child.Type); child.Type == "object" {
				if !child.closed() {
					t.Errorf("config.%s%s is open for what the program refuses", path, name)
				}
				collect(child, path+name+".")
			}
		}
	}
	block, _ := s.child(s, "config")
	collect(block, "")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("values.schema.json has %q for config.%s, the program reads %q", got[name], name, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("values.schema.json has config.%s, which the program refuses", name)
		}
	}
}

// fields lists the fields of a struct by the names that they have in YAML, with what a schema calls their type. structs are those that fields may be of.
func fields(t *testing.T, s *ast.StructType, structs map[string]*ast.StructType, path string, out map[string]string) {
	t.Helper()
	for _, f := range s.Fields.List {
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(tag, `json:"`), `"`), ",")
		expr := f.Type
		if star, ok := expr.(*ast.StarExpr); ok {
			expr = star.X
		}
		switch x := expr.(type) {
		case *ast.StructType:
			out[path+name] = "object"
			fields(t, x, structs, path+name+".", out)
		case *ast.ArrayType:
			out[path+name] = "array"
		case *ast.MapType:
			out[path+name] = "map"
		case *ast.SelectorExpr:
			out[path+name] = strings.ToLower(x.Sel.Name)
		case *ast.Ident:
			if nested := structs[x.Name]; nested != nil {
				out[path+name] = "object"
				fields(t, nested, structs, path+name+".", out)
				continue
			}
			out[path+name] = map[string]string{"bool": "boolean", "string": "string"}[x.Name]
			if strings.Contains(x.Name, "int") {
				out[path+name] = "integer"
			}
		default:
			t.Fatalf("config field %s%s has a type that this test does not know", path, name)
		}
	}
}

// TestFlags checks that the program has every flag that the chart gives it.
func TestFlags(t *testing.T) {
	files, err := filepath.Glob("../../cmd/fairlead/*.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 3 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if lit, isLit := call.Args[1].(*ast.BasicLit); ok && isLit && strings.Contains(sel.Sel.Name, "Var") {
				known[strings.Trim(lit.Value, `"`)] = true
			}
			return true
		})
	}
	if !known["admin-address"] {
		t.Fatal("found no flag --admin-address: the search is broken")
	}
	missing := map[string]string{}
	for _, name := range scenarios(t) {
		template, _ := workload(t, documents(t, render(t, "-f", valuesFile(name))))
		for _, arg := range template.Spec.Containers[0].Args[1:] {
			flag, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if !known[flag] {
				missing[flag] = name
			}
		}
	}
	for flag, name := range missing {
		t.Errorf("the chart gives --%s (%s), and fairlead has no such flag", flag, name)
	}
}

// refused are values that the schema refuses.
var refused = []struct{ set, want string }{
	{"replica=3", "additional properties 'replica' not allowed"},
	{"service.typ=NodePort", "additional properties 'typ' not allowed"},
	{"config.drain.dely=1s", "additional properties 'dely' not allowed"},
	{"service.type=ExternalName", "value must be one of 'LoadBalancer', 'NodePort', 'ClusterIP'"},
	{"kind=StatefulSet", "value must be one of 'Deployment', 'DaemonSet'"},
	{"replicas=two", "got string, want null or integer"},
	{"replicas=-1", "minimum"},
	{"ports.http.containerPort=70000", "maximum"},
	{"ports.admin.containerPort=null", "missing property 'containerPort'"},
	{"service.ports.http=null", "missing property 'http'"},
	{"config.drain.delay=10", "got number, want string"},
	{"config.drain.delay=ten", "does not match pattern"},
	{"config.limits.bodyBytes=1MB", "got string, want integer"},
	{"watchNamespaces=a", "got string, want array"},
	{"watchNamespaces={a,a}", "items at 0 and 1 are equal"},
	{"watchNamespaces={A}", "does not match pattern"},
	{"secretNamespaces=null,resources=1", "got number, want object"},
	{"gatewayClass.create=maybe", "value must be one of 'auto', true, false"},
	{"publishNodes=maybe", "value must be one of 'auto', true, false"},
	{"gateway.addresses=10.0.0.0/8", "value must be one of 'service', 'host'"},
	{"image.digest=sha256:abc", "does not match pattern"},
	{"publishService=front", "does not match pattern"},
	{"extraArgs={serve}", "does not match pattern"},
	{"podAnnotations.a=1", "got number, want string"},
	{"podDisruptionBudget.maxUnavailable=half", "does not match pattern"},
	{"service.loadBalancerSourceRanges={10.0.0.1}", "does not match pattern"},
	{"fullnameOverride=1up", "does not match pattern"},
	{"logLevel=trace", "value must be one of"},
}

// impossible are values that the schema allows and that cannot work together.
var impossible = []struct{ set, want string }{
	{"kind=DaemonSet,autoscaling.enabled=true", "autoscaling.enabled: a DaemonSet has one pod for each node"},
	{"autoscaling.enabled=true,autoscaling.minReplicas=20", "autoscaling.minReplicas: more than autoscaling.maxReplicas"},
	{"leaderElection=false", "leaderElection: without it there must be one replica only"},
	{"leaderElection=false,kind=DaemonSet,replicas=1", "leaderElection: without it"},
	{"leaderElection=false,replicas=1,autoscaling.enabled=true", "leaderElection: without it"},
	{"leaderElection=false,replicas=null", "leaderElection: without it"},
	{"terminationGracePeriodSeconds=39", "terminationGracePeriodSeconds: 39 is less than the 40 s"},
	{"terminationGracePeriodSeconds=60,config.drain.grace=1m", "60 is less than the 70 s"},
	{"terminationGracePeriodSeconds=0", "0 is less than the 40 s"},
	{"podDisruptionBudget.minAvailable=2", "podDisruptionBudget.minAvailable: 2 of 2 replicas means"},
	{"ports.http.containerPort=8443", "ports: http, https and admin need three different ports in the pod, not 8443, 8443, 9000"},
	{"ports.admin.containerPort=8080", "need three different ports"},
	{"ports.http.containerPort=20000", "ports: 20000 is one of the ports from 20000 to 29999"},
	{"hostNetwork=true,ports.http.hostPort=8080", "ports.http.hostPort: with hostNetwork the pod's port is the node's port: set ports.http.containerPort to 8080"},
	{"ports.https.hostIP=192.0.2.1", "ports.https.hostIP: has no meaning without ports.https.hostPort"},
	{"gateway.addresses=host", "gateway.addresses: host needs the ports of the nodes"},
	{"gateway.addresses=host,ports.http.hostPort=80", "gateway.addresses: host needs the ports of the nodes"},
	{"gateway.addresses=host,hostNetwork=true,gateway.serviceType=NodePort", "gateway: serviceType and externalTrafficPolicy have no meaning with addresses: host"},
	{"rbac.clusterScope=false", "rbac.clusterScope: without rights in the whole cluster, watchNamespaces has to say"},
	{"rbac.clusterScope=false,watchNamespaces={a}", "ingressClass.create: an IngressClass belongs to the whole cluster"},
	{"rbac.clusterScope=false,watchNamespaces={a},ingressClass.create=false,gatewayClass.create=true", "gatewayClass.create: a GatewayClass belongs to the whole cluster"},
	{"watchNamespaces={a},secretNamespaces={b}", "secretNamespaces: b is not one of watchNamespaces"},
	{"serviceAccount.create=false", "serviceAccount.name: with serviceAccount.create: false"},
	{"publishService=a/b,config.publishAddresses={192.0.2.1}", "publishService: the addresses are in config.publishAddresses already"},
	{"publishNodes=true,config.publishAddresses={192.0.2.1}", "publishNodes: the addresses are in config.publishAddresses already"},
	{"publishNodes=true,rbac.clusterScope=false,watchNamespaces={a},ingressClass.create=false,gatewayClass.create=false", "publishNodes: nodes belong to the whole cluster"},
	{"publishService=b/front,watchNamespaces={a}", "publishService: Services in namespace b cannot be read"},
	{"service.type=NodePort,service.loadBalancerClass=x/y", "service.loadBalancerClass: only for service.type: LoadBalancer, not NodePort"},
	{"service.type=ClusterIP,service.loadBalancerSourceRanges={10.0.0.0/8}", "service.loadBalancerSourceRanges: only for service.type: LoadBalancer, not ClusterIP"},
	{"service.type=NodePort,service.allocateLoadBalancerNodePorts=false", "service.allocateLoadBalancerNodePorts: only for"},
	{"service.type=ClusterIP,service.nodePorts.https=30443", "service.nodePorts: only for"},
	{"service.type=ClusterIP,service.externalTrafficPolicy=Local", "service.externalTrafficPolicy: only for"},
	{"service.healthCheckNodePort=30999", "service.healthCheckNodePort: only with service.externalTrafficPolicy: Local"},
	{"service.ports.https=80", "service.ports: http and https need different ports"},
	{"resources.limits.memory=lots", `resources.limits.memory: "lots" is not a size such as 512Mi`},
	{"resources.limits.memory=1.2.3Gi", "is not a size"},
}

// TestRefused also checks that every check of the templates is among the cases.
func TestRefused(t *testing.T) {
	helmProgram(t)
	var said strings.Builder
	for _, tt := range slices.Concat(refused, impossible) {
		t.Run(tt.set, func(t *testing.T) {
			out, err := helm(t, "template", release, chartDir, "-n", namespace, "--set", tt.set)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("helm template --set %s: %v, want an error with %q; it rendered %d bytes", tt.set, err, tt.want, len(out))
			}
			fmt.Fprintln(&said, err)
		})
	}
	message := regexp.MustCompile(`fail (?:\(printf )?"([^"]+)"`)
	verb := regexp.MustCompile(`%[sdq]`)
	for _, file := range templates(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := message.FindAllStringSubmatch(string(data), -1)
		if n := strings.Count(string(data), "{{- fail "); n != len(found) {
			t.Errorf("%s has %d checks, of which this test finds %d", file, n, len(found))
		}
		for _, m := range found {
			if !regexp.MustCompile(verb.ReplaceAllString(regexp.QuoteMeta(m[1]), ".+")).MatchString(said.String()) {
				t.Errorf("%s: no case is about the check %q", file, m[1])
			}
		}
	}
}
