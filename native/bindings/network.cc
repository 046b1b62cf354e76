// Bounds and tree packing for Python: flat arrays in and out. pycomm/planner/graph gives them names.
#include <pybind11/stl.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "gil.h"
#include "network/bound.h"
#include "network/digraph.h"
#include "network/pack.h"

namespace pycomm::bindings {
namespace {

// A network with numbers on its arcs and on its ranks, checked.
struct Weighted {
  View<std::int32_t> src, dst;
  View<std::int64_t> capacity, weights;
  network::Digraph graph;

  Weighted(int nranks, int nvertices, const py::buffer& src_, const py::buffer& dst_, const py::buffer& capacity_,
           const py::buffer& weights_)
      : src(src_, "src"),
        dst(dst_, "dst"),
        capacity(capacity_, "capacity"),
        weights(weights_, "weights"),
        graph(nranks, nvertices, src.span(), dst.span()) {
    if (capacity.span().size() != graph.src.size()) throw py::value_error("capacity must have one number per arc");
    if (weights.span().size() != static_cast<std::size_t>(nranks))
      throw py::value_error("weights must have one number per rank");
    for (const auto& numbers : {capacity.span(), weights.span()})
      for (const std::int64_t number : numbers)
        if (number < 0) throw py::value_error("capacity and weights must be 0 or more");
  }
};

py::tuple py_bound(int nranks, int nvertices, const py::buffer& src, const py::buffer& dst, const py::buffer& capacity,
                   const py::buffer& weights) {
  const Weighted in(nranks, nvertices, src, dst, capacity, weights);
  network::Ratio ratio;
  {
    const GilRelease release;
    ratio = network::greatest_ratio(in.graph, in.capacity.span(), in.weights.span());
  }
  return py::make_tuple(ratio.weight, ratio.capacity, to_array(std::move(ratio.outside)));
}

py::list py_separate(int nranks, int nvertices, const py::buffer& src, const py::buffer& dst,
                     const py::buffer& capacity, const py::buffer& weights) {
  const Weighted in(nranks, nvertices, src, dst, capacity, weights);
  std::vector<std::vector<std::uint8_t>> cuts;
  {
    const GilRelease release;
    cuts = network::violated_cuts(in.graph, in.capacity.span(), in.weights.span());
  }
  py::list found;
  for (std::vector<std::uint8_t>& cut : cuts) found.append(to_array(std::move(cut)));
  return found;
}

py::tuple py_pack(int nranks, int nvertices, const py::buffer& src, const py::buffer& dst, const py::buffer& capacity,
                  const py::buffer& roots) {
  const Weighted in(nranks, nvertices, src, dst, capacity, roots);
  network::Forest forest;
  std::int64_t by_proof = 0;
  {
    const GilRelease release;
    forest = network::pack(in.graph, in.capacity.span(), in.weights.span(), by_proof);
  }
  return py::make_tuple(to_array(std::move(forest.root)), to_array(std::move(forest.weight)),
                        to_array(std::move(forest.first_edge)), to_array(std::move(forest.first_vertex)),
                        to_array(std::move(forest.path)), by_proof);
}

}  // namespace

void bind_network(py::module_& module) {
  module.def("network_bound", &py_bound, py::arg("nranks"), py::arg("nvertices"), py::arg("src"), py::arg("dst"),
             py::arg("capacity"), py::arg("weights"),
             "The greatest weight(S) / capacity leaving S: (weight, capacity, whether each vertex is outside S).");
  module.def("network_separate", &py_separate, py::arg("nranks"), py::arg("nvertices"), py::arg("src"), py::arg("dst"),
             py::arg("capacity"), py::arg("weights"),
             "Sets that hold more weight than can leave them, each told by whether each vertex is outside.");
  module.def("network_pack", &py_pack, py::arg("nranks"), py::arg("nvertices"), py::arg("src"), py::arg("dst"),
             py::arg("capacity"), py::arg("roots"),
             "Spanning trees: (root of each, weight of each, first edge of each, first vertex of each edge's path, "
             "vertices of all paths, weight that the proved method packed).");
}

}  // namespace pycomm::bindings
