package route

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Limits of regular expressions. An expression runs on every request that gets as far, and its time is at worst the product of its steps and the length of the
// value: some 10 ms for 250 steps on 4 KiB. Most expressions in routes have fewer than 60 steps.
const (
	maxRegexBytes = 1024
	maxRegexSteps = 250
	maxRegexValue = 4 << 10
)

// matchRegex reports whether an expression matches a value. No expression matches a value of more than 4 KiB: what a client sends must not decide how long
// somebody else's expression runs.
func matchRegex(re *regexp.Regexp, value string) bool {
	return len(value) <= maxRegexValue && re.MatchString(value)
}

// CompileRegex compiles an expression (RE2 syntax) that has to match the whole of a value. It refuses what could burn CPU: expressions longer than 1024 bytes,
// and those of more than 250 steps, which is what counted repetitions blow up. Errors are sentences for the author of the expression.
func CompileRegex(expr string) (*regexp.Regexp, error) {
	if len(expr) > maxRegexBytes {
		return nil, fmt.Errorf("regular expression is %d bytes long; at most %d are allowed", len(expr), maxRegexBytes)
	}
	// Parsed alone first: what is balanced only together with the anchors, such as a)|(b, would escape them.
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q is not valid (RE2 syntax): %w", expr, err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, fmt.Errorf("regular expression %q is not valid (RE2 syntax): %w", expr, err)
	}
	if n := len(prog.Inst); n > maxRegexSteps {
		return nil, fmt.Errorf("regular expression %q is too costly: it takes a program of %d steps, and %d are allowed; "+
			"counted repetitions such as {1,63} cost a step for each count, + and * cost one", expr, n, maxRegexSteps)
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q is not valid (RE2 syntax): %w", expr, err)
	}
	return re, nil
}

// literalPrefix returns a literal that everything that re matches begins with, if re is anchored; "" is always true.
func literalPrefix(re *regexp.Regexp) string {
	if re == nil {
		return ""
	}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return ""
	}
	literal, _ := leading(tree.Simplify(), false)
	return literal
}

// leading returns the literal at the beginning of a tree, and whether the beginning is anchored.
func leading(t *syntax.Regexp, anchored bool) (literal string, isAnchored bool) {
	switch t.Op {
	case syntax.OpBeginText:
		return "", true
	case syntax.OpLiteral:
		if anchored && t.Flags&syntax.FoldCase == 0 {
			return string(t.Rune), true
		}
	case syntax.OpCapture:
		return leading(t.Sub[0], anchored)
	case syntax.OpConcat:
		for _, sub := range t.Sub {
			if literal, anchored = leading(sub, anchored); literal != "" || !anchored {
				return literal, anchored
			}
		}
		return "", anchored
	}
	return "", false
}
