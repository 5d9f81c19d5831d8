// Package web translates gRPC-Web to gRPC and back, and says what pages of other
// origins may do (CORS).
package web
