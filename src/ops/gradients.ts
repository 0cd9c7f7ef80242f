// tfjs-core first: whoever loads first makes the global engine, and it must be the one with every op method.
import '@tensorflow/tfjs-core';
import '#tfjs-gradients';
