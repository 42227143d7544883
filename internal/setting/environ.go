package setting

import (
	"fmt"
	"slices"
	"strings"
)

// Variable is a variable of the environment and the field that it sets. Its name follows
// the prefix.
type Variable struct {
	Name    string
	Field   any         // points to the field
	Narrows bool        // the default accepts more, so an empty value must not mean the default
	Weakens func() bool // whether the value protects less than the default
}

// FromEnviron sets the fields from the variables of an environment that begin with
// prefix. It skips empty ones, those of Kubernetes, and those that begin with prefix and
// other, which are another program's. It returns the names of those that weaken the
// protection.
func FromEnviron(variables []Variable, environ []string, prefix, other string) (weakened []string, mistakes []error) {
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, prefix)
		if !ours || OfKubernetes.MatchString(name) || (other != "" && strings.HasPrefix(name, other)) {
			continue
		}
		mistake := Unknown
		if n := slices.IndexFunc(variables, func(v Variable) bool { return v.Name == name }); n >= 0 {
			v := variables[n]
			if value == "" && !v.Narrows {
				continue
			}
			if mistake = Parse(v.Field, value); mistake == "" && v.Weakens != nil && v.Weakens() {
				weakened = append(weakened, variable)
			}
		}
		if mistake != "" {
			mistakes = append(mistakes, fmt.Errorf("m2mauth: %s %s", variable, mistake))
		}
	}
	return weakened, mistakes
}
