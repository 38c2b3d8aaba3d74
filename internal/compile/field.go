package compile

import "strconv"

// indexed is the path of an element of a list field.
func indexed(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// ruleField, matchField and backendField are the paths of the parts of a route that every line of a table names. Those of small indexes exist once, because a
// table with many routes would hold them many times.
func ruleField(i int) string {
	if i < len(rulePaths) {
		return rulePaths[i].rule
	}
	return indexed("spec.rules", i)
}

func matchField(i, j int) string {
	if i < len(rulePaths) && j < len(rulePaths[i].matches) {
		return rulePaths[i].matches[j]
	}
	return indexed(ruleField(i)+".matches", j)
}

func backendField(i, j int) string {
	if i < len(rulePaths) && j < len(rulePaths[i].backends) {
		return rulePaths[i].backends[j]
	}
	return indexed(ruleField(i)+".backendRefs", j)
}

// rulePaths are the paths for the numbers of rules, matches and backends that most routes have.
var rulePaths = makeRulePaths()

type rulePath struct {
	rule              string
	matches, backends [8]string
}

func makeRulePaths() (paths [16]rulePath) {
	for i := range paths {
		p := &paths[i]
		p.rule = indexed("spec.rules", i)
		for j := range p.matches {
			p.matches[j] = indexed(p.rule+".matches", j)
			p.backends[j] = indexed(p.rule+".backendRefs", j)
		}
	}
	return paths
}
