package admin

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// learnTime bounds how long an answer waits for backends to tell of themselves.
const learnTime = 5 * time.Second

// schemaService answers sluice.admin.v1.SchemaService.
type schemaService struct{ *api }

var _ adminv1.SchemaServiceHandler = (*schemaService)(nil)

// ListSchemas tells where descriptors come from.
func (s *schemaService) ListSchemas(ctx context.Context, req *connect.Request[adminv1.ListSchemasRequest]) (*connect.Response[adminv1.ListSchemasResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, learnTime)
	defer cancel()
	sources := s.gateway.Schemas(ctx, req.Msg.GetLearn())
	return connect.NewResponse(&adminv1.ListSchemasResponse{Sources: sourceMessages(sources)}), nil
}

// ListMethods tells what methods backends have.
func (s *schemaService) ListMethods(ctx context.Context, req *connect.Request[adminv1.ListMethodsRequest]) (*connect.Response[adminv1.ListMethodsResponse], error) {
	of := MethodsOf{Learn: req.Msg.GetLearn()}
	var err error
	if of.Route, err = s.routeOf(req.Msg.GetRoute()); err != nil {
		return nil, err
	}
	if of.Backend, err = s.backendOf(req.Msg.GetBackend()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, learnTime)
	defer cancel()
	methods, problems, err := s.gateway.Methods(ctx, of)
	if err != nil {
		return nil, err
	}
	resp := &adminv1.ListMethodsResponse{Problems: sourceMessages(problems)}
	for i := range methods {
		resp.Methods = append(resp.Methods, methodMessage(&methods[i]))
	}
	return connect.NewResponse(resp), nil
}

// GetOpenAPI describes the methods of a route.
func (s *schemaService) GetOpenAPI(ctx context.Context, req *connect.Request[adminv1.GetOpenAPIRequest]) (*connect.Response[adminv1.GetOpenAPIResponse], error) {
	if req.Msg.GetRoute() == nil {
		return nil, store.Faults{{Field: "route", Message: "is missing"}}
	}
	route, err := s.routeOf(req.Msg.GetRoute())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, learnTime)
	defer cancel()
	document, err := s.gateway.OpenAPI(ctx, route)
	if err != nil {
		return nil, err
	}
	if len(document) > maxListed {
		return nil, refuse(connect.CodeResourceExhausted, "the document has %d bytes, limit %d: ask for a route with fewer methods", len(document), maxListed)
	}
	return connect.NewResponse(&adminv1.GetOpenAPIResponse{Document: string(document)}), nil
}

// routeOf is the route that a request names, which exists; the zero ID when it names
// none.
func (s *schemaService) routeOf(ref *adminv1.Ref) (store.ID, error) {
	if ref == nil {
		return store.ID{}, nil
	}
	id, err := s.kindOf("route", ref, routeKinds...)
	if err != nil {
		return store.ID{}, err
	}
	return id, s.exists(id)
}

// backendOf is the key of the backend that a request names, which exists; empty when
// it names none.
func (s *schemaService) backendOf(name string) (key string, err error) {
	if name == "" {
		return "", nil
	}
	namespace, name, qualified := strings.Cut(name, "/")
	if !qualified {
		namespace, name = store.DefaultNamespace, namespace
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", store.Faults{{Field: "backend", Message: "want a name, or namespace/name"}}
	}
	return namespace + "/" + name, s.exists(store.ID{Kind: store.BackendKind, Namespace: namespace, Name: name})
}

func (s *schemaService) exists(id store.ID) error {
	if _, found := s.store.Snapshot().Get(id); !found {
		return &store.NotFoundError{ID: id}
	}
	return nil
}

func sourceMessages(sources []SchemaSource) (told []*adminv1.SchemaSource) {
	for _, s := range sources {
		m := &adminv1.SchemaSource{
			Kind: adminv1.SchemaSource_KIND_REFLECTION, Backend: s.Backend, Version: s.Version,
			Methods: uint32(s.Methods), Learnt: stamp(s.Learnt), Problem: s.Problem,
		}
		if !s.Object.IsZero() {
			m.Kind, m.Object = adminv1.SchemaSource_KIND_OBJECT, refMessage(s.Object)
		}
		told = append(told, m)
	}
	return told
}

func methodMessage(m *Method) *adminv1.Method {
	told := &adminv1.Method{
		Name: m.Name, Input: m.Input, Output: m.Output,
		ClientStreaming: m.ClientStreaming, ServerStreaming: m.ServerStreaming,
		NoSideEffects: m.NoSideEffects, Deprecated: m.Deprecated,
		Backends: m.Backends, Description: m.Description,
	}
	for _, b := range m.Bindings {
		told.Bindings = append(told.Bindings, &adminv1.HttpBinding{Verb: b.Verb, Path: b.Path, Body: b.Body, ResponseBody: b.ResponseBody})
	}
	return told
}
