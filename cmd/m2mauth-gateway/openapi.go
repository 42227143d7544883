package main

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

// openAPISettings is a document whose operations are rows, with what it does not say: see
// openapiauth.Options.
type openAPISettings struct {
	Document  string   `yaml:"document"`
	BasePath  string   `yaml:"base_path"`
	Public    []string `yaml:"public"`
	Optional  []string `yaml:"optional"`
	AnyToken  []string `yaml:"any_token"`
	Elsewhere []string `yaml:"elsewhere"`
}

// checkOpenAPI makes the rows of all documents.
func (s *settings) checkOpenAPI(r *reader, dir string) {
	for n := range s.OpenAPI {
		o, path := &s.OpenAPI[n], fmt.Sprintf("openapi[%d]", n)
		if o.Document = s.named(r, dir, path+".document", o.Document, true); o.Document == "" {
			continue
		}
		text, err := readFile(o.Document)
		if err != nil {
			r.add(path+".document", "%v", err)
			continue
		}
		table, err := openapiauth.Rules(text, openapiauth.Options{
			BasePath: o.BasePath, Public: o.Public, Optional: o.Optional, AnyToken: o.AnyToken, Elsewhere: o.Elsewhere,
		})
		name := filepath.Base(o.Document)
		if err != nil {
			for _, one := range errorsIn(err) {
				if m, ok := errors.AsType[*openapiauth.Mistake](one); ok && m.Line > 0 {
					r.addIn(name, n+1, m.Line, "%v", one)
				} else {
					r.add(path, "%v", one)
				}
			}
			continue
		}
		for _, row := range table.Rows() {
			s.addOpenAPIRow(r, table, row, name, n+1)
		}
	}
}

// addOpenAPIRow adds the row of an operation.
func (s *settings) addOpenAPIRow(r *reader, table *openapiauth.Table, from openapiauth.Row, name string, order int) {
	if from.Method == http.MethodHead {
		if !slices.ContainsFunc(table.Rows(), func(other openapiauth.Row) bool { return other.Method == http.MethodGet && other.Path == from.Path }) {
			r.addIn(name, order, from.Line, "HEAD %s: HEAD follows GET here, and the document has no GET for that path", from.Path)
		}
		return // it has the demand of GET: openapiauth holds them to that
	}
	pattern, err := parsePattern(from.Path)
	if err == nil && !methodForm.MatchString(from.Method) {
		err = fmt.Errorf("%q is no method: methods are upper-case letters", from.Method)
	}
	if err != nil {
		r.addIn(name, order, from.Line, "%s %s: %v", from.Method, from.Path, err)
		return
	}
	one := row{method: from.Method, path: from.Path, pattern: pattern, public: from.Public, rule: from.Rule, demand: demandPublic, line: from.Line, file: name, order: order}
	if !from.Public {
		one.demand = from.Rule.String()
	}
	s.described = append(s.described, one)
}
