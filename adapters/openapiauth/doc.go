// Package openapiauth makes a table of rules from an OpenAPI document (3.0 or 3.1), so
// that an API's own description says who may do what.
//
//	table, err := openapiauth.Rules(document, openapiauth.Options{BasePath: "/v1"})
//	// err names every mistake of the document, with its line.
//	handler, err := guard.Routes(mux, table.Rules(), table.Public()...)
//
// What an operation says, or the document for all operations that say nothing:
//
//	security:                           # alternatives: AnyOf
//	  - oauth: [read:products]          # AllScopes("read:products")
//	  - oauth: [admin]                  # several schemes in one entry: AllOf
//	security: []                        # public
//
// Only schemes of the types oauth2 and openIdConnect have scopes. What grants more than
// scopes is a mistake until [Options] names the operation: no security at all, {} among
// the alternatives, an empty list of scopes, and schemes that a token cannot meet.
// So is a path that a pattern of [net/http.ServeMux] cannot say: it is never widened.
// servers is not read, also not that of a path or an operation: base paths come from
// [Options]. Nor are the URLs of schemes: a scope counts from each issuer of the guard.
//
// The document is trusted no further than needed. It is bounded (2 MiB, 100 levels), and
// only the paths, their parameters, operationId and security are read. A $ref leads to
// the same document; nothing else is opened, neither files nor URLs.
//
// # The library
//
// The model of a document and the resolution of $ref are those of
// github.com/getkin/kin-openapi, which oapi-codegen builds on too. It has 3.0 and 3.1, a MIT
// licence, and brings four modules into a program, all of them releases. It refuses
// external references by default. The advisories about it that we know (CVE-2025-30153
// among them) concern openapi3filter, which validates requests and is not used here, and
// schemas that refer to themselves, which are not read here. The other candidate,
// github.com/pb33f/libopenapi (MIT as well), had 3.1 first. But it requires an untagged
// commit of 2020 and its own forks of yaml and testify, and looks references up in
// goroutines of its own: more to trust, for parts that rules do not need.
//
// What kin-openapi leaves open is checked before it sees the document: names that occur
// twice, of which its JSON fallback takes the last; a path item whose $ref leads to another
// $ref, which it drops; long chains of $ref, for which it takes minutes; and fields that
// the specification does not have.
package openapiauth
